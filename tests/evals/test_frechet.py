import numpy as np

from ul.evals import frechet
from ul.evals.features import pixels

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
