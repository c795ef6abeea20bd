"""The Frechet distance against closed forms and SciPy; its moments against numpy."""

import numpy as np
import pytest
from scipy import linalg

from tests.lib.breaks import Break
from ul.metrics import frechet
from ul.metrics.features import pixels

RNG = np.random.default_rng(0)


def diagonal_gaussian(mean, variances):
    return np.asarray(mean, float), np.diag(np.asarray(variances, float))


def test_diagonal_gaussians_have_a_closed_form():
    a = diagonal_gaussian([0, 1, 2], [1, 4, 9])
    b = diagonal_gaussian([1, 1, 0], [4, 4, 1])
    expected = (1 + 0 + 4) + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
    np.testing.assert_allclose(frechet.distance(a, b), expected, rtol=1e-12)


def test_identity_symmetry_and_rank_deficiency():
    low_rank = frechet.fit_gaussian(RNG.normal(size=(5, 12)))
    full_rank = frechet.fit_gaussian(RNG.normal(size=(500, 12)))
    np.testing.assert_allclose(frechet.distance(low_rank, low_rank), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        frechet.distance(low_rank, full_rank),
        frechet.distance(full_rank, low_rank),
        rtol=1e-6,
    )
    assert frechet.distance(low_rank, full_rank) > 1.0


def test_closed_forms_hold_to_nine_digits():
    mean, variances = RNG.normal(size=16), RNG.uniform(0.5, 2.0, 16)
    other_variances = RNG.uniform(0.5, 2.0, 16)
    a, shift = diagonal_gaussian(mean, variances), RNG.normal(size=16)
    np.testing.assert_allclose(frechet.distance(a, a), 0.0, atol=1e-9)
    shifted = diagonal_gaussian(mean + shift, variances)
    np.testing.assert_allclose(frechet.distance(a, shifted), shift @ shift, rtol=1e-9)
    expected = np.sum(np.square(np.sqrt(variances) - np.sqrt(other_variances)))
    actual = frechet.distance(a, diagonal_gaussian(mean, other_variances))
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    # A rotation of both does not change the distance.
    rotation = np.linalg.qr(RNG.normal(size=(16, 16)))[0]
    rotated = [
        (rotation @ m, rotation @ c @ rotation.T)
        for m, c in (a, diagonal_gaussian(mean, other_variances))
    ]
    np.testing.assert_allclose(frechet.distance(*rotated), expected, rtol=1e-9)


def distance_with_sqrtm(a, b):
    """Return the formula of Dowson and Landau as FID's first implementation has it."""
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    root = np.real(linalg.sqrtm(cov_a @ cov_b))
    difference = mean_a - mean_b
    return difference @ difference + np.trace(cov_a + cov_b - 2.0 * root)


@pytest.mark.parametrize(
    "width", [64, pytest.param(2048, marks=pytest.mark.slow)], ids=str
)
def test_the_distance_equals_the_formula_with_sqrtm(width):
    mix = RNG.normal(size=(width, width)) / np.sqrt(width)
    a = frechet.fit_gaussian(RNG.normal(size=(4 * width, width)))
    b = frechet.fit_gaussian(RNG.normal(size=(4 * width, width)) @ mix + 0.1)
    np.testing.assert_allclose(
        frechet.distance(a, b), distance_with_sqrtm(a, b), rtol=1e-6
    )


def merged_moments(x, *cuts):
    """Return the moments of x, merged from chunks that begin at `cuts`."""
    moments = frechet.FeatureMoments.empty(x.shape[1])
    for chunk in np.split(x, cuts):
        moments = moments.merge(frechet.FeatureMoments.from_features(chunk))
    return moments


@pytest.mark.parametrize("cuts", [(1,), (2, 3, 350), tuple(range(1, 400, 7))], ids=len)
def test_moments_do_not_depend_on_the_chunks(cuts):
    """The mean is so far from zero that sums of squares would lose eight digits."""
    x = 1e4 + RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5))
    mean, covariance = merged_moments(x, *cuts).gaussian()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x.T), rtol=1e-9, atol=1e-10)


def test_moments_of_float32_features_are_float64():
    x = (1e3 + RNG.normal(size=(400, 3))).astype(np.float32)
    covariance = merged_moments(x, 100, 200).gaussian()[1]
    assert covariance.dtype == np.float64
    np.testing.assert_allclose(covariance, np.cov(x.T.astype(np.float64)), rtol=1e-9)


def test_moments_continue_after_a_file(tmp_path):
    x = RNG.normal(size=(50, 4))
    np.savez(
        tmp_path / "a.npz", **frechet.FeatureMoments.from_features(x[:20]).to_arrays()
    )
    with np.load(tmp_path / "a.npz") as data:
        restored = frechet.FeatureMoments.from_arrays(data)
    actual = restored.merge(frechet.FeatureMoments.from_features(x[20:])).gaussian()
    for a, b in zip(actual, merged_moments(x, 20).gaussian(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 rows of features; got 1"):
        frechet.FeatureMoments.from_features(np.ones((1, 3))).gaussian()


def test_the_fitted_gaussian_is_that_of_numpy():
    x = RNG.normal(size=(40, 3))
    mean, covariance = frechet.fit_gaussian(x)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x.T))


def test_more_noise_gives_a_larger_distance():
    real = RNG.integers(60, 200, (400, 16, 16, 3))
    reference = frechet.fit_gaussian(pixels.features(real.astype(np.uint8)))

    def distance(std):
        noise = RNG.normal(scale=std, size=real.shape)
        noisy = np.clip(real + noise, 0, 255).astype(np.uint8)
        return frechet.distance(frechet.fit_gaussian(pixels.features(noisy)), reference)

    assert distance(10) < distance(40) < distance(120)


def test_pixel_features_are_means_of_equal_areas():
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, :2, :2] = [[[0], [255]], [[255], [0]]]
    actual = pixels.features(image)[0]
    assert actual.shape == (64,)
    np.testing.assert_allclose(actual[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(actual[1:], -1.0)


BREAKS = (
    Break(
        "a covariance divided by N",
        "ul/metrics/frechet.py",
        "self.outer / (self.count - 1)",
        "self.outer / self.count",
        "test_the_fitted_gaussian_is_that_of_numpy",
    ),
    Break(
        "covariances merged without the gap between the means",
        "ul/metrics/frechet.py",
        "self.outer + other.outer + between",
        "self.outer + other.outer",
        "test_moments_do_not_depend_on_the_chunks",
    ),
    Break(
        "a Frechet distance without the 2 of its cross term",
        "ul/metrics/frechet.py",
        "- 2.0 * np.sum(np.sqrt(",
        "- np.sum(np.sqrt(",
        "test_diagonal_gaussians_have_a_closed_form",
    ),
)
