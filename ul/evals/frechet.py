"""The Frechet distance of two sets of features, in float64 on the host."""

import numpy as np


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d] of features [N, d]."""
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def _root(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def distance(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> float:
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
