"""The Frechet distance between two sets of features, in float64 on the host."""

from collections.abc import Mapping

import numpy as np

Gaussian = tuple[np.ndarray, np.ndarray]


class FeatureMoments:
    """Count, mean [d] and scatter matrix [d, d] of features that arrive in chunks.

    The scatter matrix `outer` is the sum of the outer products of the deviations from the
    mean. Chunks are merged by Chan's rule (Chan, Golub and LeVeque 1983): the result does
    not depend on how the features were divided, up to the rounding of float64.
    """

    def __init__(self, count: int, mean: np.ndarray, outer: np.ndarray):
        self.count, self.mean, self.outer = count, mean, outer

    @classmethod
    def empty(cls, dimensions: int) -> "FeatureMoments":
        """Return the moments of no features."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def from_features(cls, features: np.ndarray) -> "FeatureMoments":
        """Return the moments of features [N, d]; N is at least 1."""
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        deviations = features - mean
        return cls(len(features), mean, deviations.T @ deviations)

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        """Return the moments of both sets of features together."""
        count = self.count + other.count
        fraction = other.count / max(count, 1)
        mean_gap = other.mean - self.mean
        between = (self.count * fraction) * np.outer(mean_gap, mean_gap)
        return FeatureMoments(
            count, self.mean + fraction * mean_gap, self.outer + other.outer + between
        )

    def gaussian(self) -> Gaussian:
        """Return the mean [d] and the covariance [d, d], divided by N - 1 as numpy and ADM do.

        Raises:
          ValueError: there are fewer than two rows of features.
        """
        if self.count < 2:
            raise ValueError(
                f"A covariance needs at least 2 rows of features; got {self.count}."
            )
        return self.mean, self.outer / (self.count - 1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to store in a file; `from_arrays` restores the moments."""
        return {
            "count": np.asarray(self.count, np.int64),
            "mean": self.mean,
            "outer": self.outer,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "FeatureMoments":
        """Restore the moments from the arrays that `to_arrays` returned."""
        return cls(int(arrays["count"]), arrays["mean"], arrays["outer"])


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Return the mean [d] and the covariance [d, d] of features [N, d]."""
    return FeatureMoments.from_features(features).gaussian()


def _matrix_sqrt(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def distance(a: Gaussian, b: Gaussian) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2).

    The symmetric form needs eigenvalues only: it takes no complex square root, and it is
    defined for covariances without full rank.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    sqrt_a = _matrix_sqrt(cov_a)
    cross = np.linalg.eigvalsh(sqrt_a @ cov_b @ sqrt_a)
    trace = (
        np.trace(cov_a)
        + np.trace(cov_b)
        - 2.0 * np.sum(np.sqrt(np.maximum(cross, 0.0)))
    )
    return float(np.sum(np.square(mean_a - mean_b)) + trace)
