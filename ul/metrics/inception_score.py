"""The inception score (Salimans et al. 2016, arXiv 1606.03498) of class probabilities."""

import numpy as np
from scipy.special import xlogy

# The ADM evaluator averages the scores of splits of 5000 samples.
SPLIT_SIZE = 5000


class InceptionScore:
    """The mean over splits of exp(mean KL(p(y|x) || p(y))), for samples in chunks.

    The samples are divided in their order into splits of `split_size`; the last split may
    be smaller.
    """

    def __init__(self, split_size: int = SPLIT_SIZE):
        self._split_size = split_size
        self._scores: list[float] = []
        self._start_split()

    def _start_split(self) -> None:
        self._count, self._total, self._negentropy = 0, 0.0, 0.0

    def add(self, probs: np.ndarray) -> None:
        """Add the class probabilities [N, classes] of the next samples."""
        probs = np.asarray(probs, np.float64)
        while len(probs):
            chunk = probs[: self._split_size - self._count]
            probs = probs[len(chunk) :]
            self._count += len(chunk)
            self._total = self._total + chunk.sum(axis=0)
            self._negentropy += float(xlogy(chunk, chunk).sum())
            if self._count == self._split_size:
                self._scores.append(self._score())
                self._start_split()

    def _score(self) -> float:
        marginal = self._total / self._count
        kl = self._negentropy / self._count - np.sum(xlogy(marginal, marginal))
        return float(np.exp(kl))

    def value(self) -> float:
        """Return the score of all samples so far, of which there must be at least one."""
        last_split = [self._score()] if self._count else []
        return float(np.mean(self._scores + last_split))
