"""Precision and recall of samples (Kynkaanniemi et al. 2019, arXiv 1904.06991).

Distances are computed in float64. The ADM evaluator uses float16, with float32 where that
overflows, so its values agree with these up to that rounding.
"""

from collections.abc import Iterator

import numpy as np

# The ball around a point reaches to its third nearest neighbor.
NEIGHBORS = 3
# Entries in one block of the distance matrix: 256 MiB of float64.
MAX_BLOCK_ENTRIES = 2**25


def _row_blocks(features: np.ndarray, num_columns: int) -> Iterator[slice]:
    """Yield slices of rows whose distances to `num_columns` points fit into one block."""
    num_rows = max(1, MAX_BLOCK_ENTRIES // num_columns)
    for first in range(0, len(features), num_rows):
        yield slice(first, first + num_rows)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = np.sum(a * a, 1)[:, None] + np.sum(b * b, 1)[None, :] - 2.0 * (a @ b.T)
    return np.maximum(square, 0.0)


def _squared_radii(features: np.ndarray) -> np.ndarray:
    """Return the squared distance [N] of each row to its third nearest other row."""
    radii = []
    for rows in _row_blocks(features, len(features)):
        square = _squared_distances(features[rows], features)
        # Index 0 holds the distance of the row to itself.
        radii.append(np.partition(square, NEIGHBORS, axis=1)[:, NEIGHBORS])
    return np.concatenate(radii)


def _coverage(points: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> float:
    """Return the fraction of points that lie in the ball of at least one center."""
    inside = [
        np.any(_squared_distances(points[rows], centers) <= radii[None, :], axis=1)
        for rows in _row_blocks(points, len(centers))
    ]
    return float(np.mean(np.concatenate(inside)))


def precision_recall(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return precision and recall of features of samples [N, d] and of references [M, d].

    Precision is the fraction of samples in the balls of the references, recall the fraction
    of references in the balls of the samples.

    Raises:
      ValueError: a set has too few rows for every row to have enough neighbors.
    """
    for features in (samples, reference):
        if len(features) <= NEIGHBORS:
            raise ValueError(
                f"Precision and recall need at least {NEIGHBORS + 1} rows of features "
                f"in each set; got {len(features)} rows."
            )
    a, b = (np.asarray(x, np.float64) for x in (samples, reference))
    return _coverage(a, b, _squared_radii(b)), _coverage(b, a, _squared_radii(a))
