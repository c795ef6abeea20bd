"""Precision and recall of samples (Kynkaanniemi et al. 2019, arXiv 1904.06991).

Distances are float64 here. The ADM evaluator computes them in float16, with float32
where that overflows: figures agree to about its rounding, not to the last digit.
"""

import numpy as np

NEIGHBOURS = 3
# Entries of a block of distances: 256 MiB of float64.
BLOCK = 2**25


def _blocks(features: np.ndarray, others: int):
    rows = max(1, BLOCK // others)
    for first in range(0, len(features), rows):
        yield slice(first, first + rows)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = np.sum(a * a, 1)[:, None] + np.sum(b * b, 1)[None, :] - 2.0 * (a @ b.T)
    return np.maximum(square, 0.0)


def _radii(features: np.ndarray) -> np.ndarray:
    """Squared distance [N] of each row to its third nearest other row."""
    found = []
    for rows in _blocks(features, len(features)):
        square = _squared(features[rows], features)
        # The row itself stands at place 0.
        found.append(np.partition(square, NEIGHBOURS, axis=1)[:, NEIGHBOURS])
    return np.concatenate(found)


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Share of points that lie in the ball of some centre."""
    inside = [
        np.any(_squared(points[rows], centres) <= radii[None, :], axis=1)
        for rows in _blocks(points, len(centres))
    ]
    return float(np.mean(np.concatenate(inside)))


def precision_recall(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Share of samples [N, d] among the reference [M, d], and the other way round.

    Raises:
      ValueError: a set has no more rows than there are neighbours.
    """
    for features in (samples, reference):
        if len(features) <= NEIGHBOURS:
            raise ValueError(f"{len(features)} rows have no {NEIGHBOURS} neighbours")
    a, b = (np.asarray(x, np.float64) for x in (samples, reference))
    return _covered(a, b, _radii(b)), _covered(b, a, _radii(a))
