"""The inception score (Salimans et al. 2016, arXiv 1606.03498) of class probabilities."""

import numpy as np
from scipy.special import xlogy

# As the ADM evaluator: the mean of the scores of so many samples each.
SPLIT = 5000


class InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) of each split of `split` samples, then the mean.

    Samples come in parts and in order; the last split may be shorter.
    """

    def __init__(self, split: int = SPLIT):
        self._split = split
        self._scores: list[float] = []
        self._start()

    def _start(self) -> None:
        self._count, self._total, self._negentropy = 0, 0.0, 0.0

    def add(self, probs: np.ndarray) -> None:
        """Probabilities [N, classes] of the next samples."""
        probs = np.asarray(probs, np.float64)
        while len(probs):
            part = probs[: self._split - self._count]
            probs = probs[len(part) :]
            self._count += len(part)
            self._total = self._total + part.sum(axis=0)
            self._negentropy += float(xlogy(part, part).sum())
            if self._count == self._split:
                self._scores.append(self._score())
                self._start()

    def _score(self) -> float:
        marginal = self._total / self._count
        kl = self._negentropy / self._count - np.sum(xlogy(marginal, marginal))
        return float(np.exp(kl))

    def value(self) -> float:
        """The score; at least one sample must have been seen."""
        rest = [self._score()] if self._count else []
        return float(np.mean(self._scores + rest))
