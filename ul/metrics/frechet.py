"""The Frechet distance of two sets of features, in float64 on the host."""

from collections.abc import Mapping

import numpy as np

Gaussian = tuple[np.ndarray, np.ndarray]


class Moments:
    """Count, mean [d] and summed outer deviations [d, d] of features that come in parts.

    Parts are merged by Chan's rule (Chan, Golub and LeVeque 1983): however the features
    were split, the result is the same up to the rounding of float64.
    """

    def __init__(self, count: int, mean: np.ndarray, outer: np.ndarray):
        self.count, self.mean, self.outer = count, mean, outer

    @classmethod
    def empty(cls, dimensions: int) -> "Moments":
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Of features [N, d], N at least 1."""
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        apart = features - mean
        return cls(len(features), mean, apart.T @ apart)

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets of features together."""
        count = self.count + other.count
        share = other.count / max(count, 1)
        gap = other.mean - self.mean
        between = (self.count * share) * np.outer(gap, gap)
        return Moments(
            count, self.mean + share * gap, self.outer + other.outer + between
        )

    def gaussian(self) -> Gaussian:
        """Mean [d] and covariance [d, d], divided by N - 1 as numpy's and ADM's.

        Raises:
          ValueError: fewer than two rows were seen.
        """
        if self.count < 2:
            raise ValueError(f"a covariance of {self.count} rows")
        return self.mean, self.outer / (self.count - 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps; `from_arrays` is the way back."""
        return {
            "count": np.asarray(self.count, np.int64),
            "mean": self.mean,
            "outer": self.outer,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Moments":
        return cls(int(arrays["count"]), arrays["mean"], arrays["outer"])


def statistics(features: np.ndarray) -> Gaussian:
    """Mean [d] and covariance [d, d] of features [N, d]."""
    return Moments.of(features).gaussian()


def _root(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def distance(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2).

    The symmetric form needs eigenvalues only: no complex square root, and it holds for
    covariances without full rank.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    root = _root(cov_a)
    cross = np.linalg.eigvalsh(root @ cov_b @ root)
    trace = (
        np.trace(cov_a)
        + np.trace(cov_b)
        - 2.0 * np.sum(np.sqrt(np.maximum(cross, 0.0)))
    )
    return float(np.sum(np.square(mean_a - mean_b)) + trace)
