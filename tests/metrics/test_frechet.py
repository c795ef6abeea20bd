import numpy as np
import pytest
from scipy import linalg

from ul.metrics import frechet
from ul.metrics.features import pixels

RNG = np.random.default_rng(0)


def gaussian(mean, variances):
    return np.asarray(mean, float), np.diag(np.asarray(variances, float))


def test_diagonal_gaussians_have_a_closed_form():
    a, b = gaussian([0, 1, 2], [1, 4, 9]), gaussian([1, 1, 0], [4, 4, 1])
    want = (1 + 0 + 4) + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
    np.testing.assert_allclose(frechet.distance(a, b), want, rtol=1e-12)


def test_identity_symmetry_and_rank_deficiency():
    few = frechet.statistics(RNG.normal(size=(5, 12)))
    many = frechet.statistics(RNG.normal(size=(500, 12)))
    np.testing.assert_allclose(frechet.distance(few, few), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        frechet.distance(few, many), frechet.distance(many, few), rtol=1e-6
    )
    assert frechet.distance(few, many) > 1.0


def test_closed_forms_hold_to_nine_digits():
    mean, variances = RNG.normal(size=16), RNG.uniform(0.5, 2.0, 16)
    other = RNG.uniform(0.5, 2.0, 16)
    a, shift = gaussian(mean, variances), RNG.normal(size=16)
    np.testing.assert_allclose(frechet.distance(a, a), 0.0, atol=1e-9)
    moved = gaussian(mean + shift, variances)
    np.testing.assert_allclose(frechet.distance(a, moved), shift @ shift, rtol=1e-9)
    want = np.sum(np.square(np.sqrt(variances) - np.sqrt(other)))
    got = frechet.distance(a, gaussian(mean, other))
    np.testing.assert_allclose(got, want, rtol=1e-9)
    # A rotation of both changes nothing.
    turn = np.linalg.qr(RNG.normal(size=(16, 16)))[0]
    turned = [(turn @ m, turn @ c @ turn.T) for m, c in (a, gaussian(mean, other))]
    np.testing.assert_allclose(frechet.distance(*turned), want, rtol=1e-9)


def with_sqrtm(a, b):
    """The formula of Dowson and Landau as FID's first code has it."""
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    root = np.real(linalg.sqrtm(cov_a @ cov_b))
    gap = mean_a - mean_b
    return gap @ gap + np.trace(cov_a + cov_b - 2.0 * root)


@pytest.mark.parametrize(
    "width", [64, pytest.param(2048, marks=pytest.mark.slow)], ids=str
)
def test_the_distance_is_that_of_the_matrix_square_root(width):
    mix = RNG.normal(size=(width, width)) / np.sqrt(width)
    a = frechet.statistics(RNG.normal(size=(4 * width, width)))
    b = frechet.statistics(RNG.normal(size=(4 * width, width)) @ mix + 0.1)
    np.testing.assert_allclose(frechet.distance(a, b), with_sqrtm(a, b), rtol=1e-6)


def in_parts(x, *cuts):
    seen = frechet.Moments.empty(x.shape[1])
    for part in np.split(x, cuts):
        seen = seen.merge(frechet.Moments.of(part))
    return seen


@pytest.mark.parametrize("cuts", [(1,), (2, 3, 350), tuple(range(1, 400, 7))], ids=len)
def test_moments_do_not_depend_on_the_split(cuts):
    """Far from zero, where sums of squares would lose eight digits."""
    x = 1e4 + RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5))
    mean, covariance = in_parts(x, *cuts).gaussian()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x.T), rtol=1e-9, atol=1e-10)


def test_moments_of_float32_features_are_of_float64():
    x = (1e3 + RNG.normal(size=(400, 3))).astype(np.float32)
    covariance = in_parts(x, 100, 200).gaussian()[1]
    assert covariance.dtype == np.float64
    np.testing.assert_allclose(covariance, np.cov(x.T.astype(np.float64)), rtol=1e-9)


def test_moments_go_on_after_a_file(tmp_path):
    x = RNG.normal(size=(50, 4))
    np.savez(tmp_path / "a.npz", **frechet.Moments.of(x[:20]).arrays())
    with np.load(tmp_path / "a.npz") as data:
        again = frechet.Moments.from_arrays(data)
    got = again.merge(frechet.Moments.of(x[20:])).gaussian()
    for a, b in zip(got, in_parts(x, 20).gaussian(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match="1 rows"):
        frechet.Moments.of(np.ones((1, 3))).gaussian()


def test_statistics_are_numpys():
    x = RNG.normal(size=(40, 3))
    mean, covariance = frechet.statistics(x)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x.T))


def test_more_noise_is_further_away():
    real = RNG.integers(60, 200, (400, 16, 16, 3))
    reference = frechet.statistics(pixels.features(real.astype(np.uint8)))

    def distance(spread):
        noise = RNG.normal(scale=spread, size=real.shape)
        noisy = np.clip(real + noise, 0, 255).astype(np.uint8)
        return frechet.distance(frechet.statistics(pixels.features(noisy)), reference)

    assert distance(10) < distance(40) < distance(120)


def test_pixel_features_are_means_of_even_areas():
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, :2, :2] = [[[0], [255]], [[255], [0]]]
    got = pixels.features(image)[0]
    assert got.shape == (64,)
    np.testing.assert_allclose(got[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(got[1:], -1.0)
