import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from ul.core.errors import DataError
from ul.diffusion import waterfilling
from ul.metrics import reconstruction
from ul.planning import spectrum as s

COLOURS = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.6, 0.3, 0.2]])


def as_uint8(x):
    """-1..1 pixels, rounded."""
    assert np.abs(x).max() <= 1.0, "a clipped process is not the one that is known"
    return np.round((x + 1.0) * 127.5).astype(np.uint8)


def white(shape, count, std=0.15, seed=0):
    rng = np.random.default_rng(seed)
    return as_uint8(np.clip(rng.normal(scale=std, size=(count, *shape)), -1, 1))


def isotropic(side, count, length, std, seed=0):
    """Images with covariance std^2 exp(-distance / length), and that covariance."""
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    covariance = std**2 * np.exp(-distance / length)
    x = np.random.default_rng(seed).normal(size=(count, side * side))
    x = x @ np.linalg.cholesky(covariance).T
    return as_uint8(x.reshape(count, side, side, 1)), covariance


def total(found):
    return found.variances.sum() * found.units


def pixel_variance(image):
    x = image.reshape(len(image), -1) / 127.5 - 1.0
    return x.var(axis=0, ddof=1).sum()


ALL = {
    "images": s.of_images,
    "patches": lambda image: s.of_patches(image, 4, 2),
    "radial": s.radial,
}


@pytest.mark.parametrize("name", ALL)
def test_white_noise_has_one_variance_and_as_many_directions_as_numbers(name):
    image = white((8, 8, 3), 3000)
    found = ALL[name](image)
    assert found.dimensions == 192
    np.testing.assert_allclose(found.variances.mean(), 0.15**2, rtol=0.02)
    # Sampled eigenvalues spread by 2 sqrt(192 / 3000); half of it is a generous bound.
    np.testing.assert_allclose(found.variances, 0.15**2, rtol=0.6)
    assert np.all(np.diff(found.variances) <= 0)


@pytest.mark.parametrize("name", ALL)
def test_the_sum_is_that_of_the_pixels_variances_around_the_mean_image(name):
    """Also of images with a mean that varies and more variance on one side."""
    ramp = np.linspace(0.1, 1.0, 8)[:, None, None]
    image = white((8, 8, 3), 60).astype(np.float64) - 127.5
    image = np.round(100.0 + 60.0 * ramp + ramp * image).astype(np.uint8)
    np.testing.assert_allclose(
        total(ALL[name](image)), pixel_variance(image), rtol=1e-9
    )


def test_whole_images_are_those_of_the_reconstructions_bound():
    image = white((4, 4, 1), 400)
    np.testing.assert_allclose(
        s.of_images(image).variances, reconstruction.covariance_spectrum(image)
    )


def test_few_examples_are_shrunk_as_ledoit_and_wolf_do():
    """Rank 3 in 192 dimensions from 40 images: nothing is 0, the trace is kept."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) @ rng.normal(scale=0.08, size=(3, 192))
    image = as_uint8(x.reshape(40, 8, 8, 3))
    found = s.of_images(image)
    flat = image.reshape(40, -1) / 127.5 - 1.0
    matrix, shrinkage = ledoit_wolf(flat)
    want = np.linalg.eigvalsh(matrix)[::-1] * 40 / 39
    np.testing.assert_allclose(found.variances, want, rtol=1e-6)
    np.testing.assert_allclose(total(found), pixel_variance(image), rtol=1e-9)
    assert found.variances[-1] > 0 and f"by {shrinkage:.2g}" in found.estimator
    raw = reconstruction.covariance_spectrum(image)
    assert found.variances[0] < raw[0]
    assert "Ledoit" not in s.of_images(white((2, 2, 1), 50)).estimator


@pytest.mark.parametrize("precision", [30.0, 300.0])
def test_bits_of_a_stationary_process_are_known(precision):
    """The exact covariance of an isotropic process, against each estimate of it."""
    image, covariance = isotropic(16, 3000, length=3.0, std=0.2)
    exact = waterfilling.rate_bits(np.linalg.eigvalsh(covariance), precision)
    np.testing.assert_allclose(s.of_images(image).bits(precision), exact, rtol=0.03)
    # 16 pixels are no endless process: a wave has no whole periods in them.
    np.testing.assert_allclose(s.radial(image).bits(precision), exact, rtol=0.05)
    patches = s.of_patches(image, 8, 4).bits(precision)
    assert exact < patches < 2.0 * exact


def test_rings_give_the_known_spectrum_and_the_channels_eigenvalues():
    """Noise with power 1 / (f0^2 + f^2) and correlated channels, cut from a torus."""
    rng, size, side = np.random.default_rng(0), 64, 32
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    power = 1.0 / (0.2**2 + f**2)
    power /= power.mean()
    noise = np.fft.fft2(rng.normal(size=(500, size, size, 3)), axes=(1, 2))
    x = np.fft.ifft2(noise * np.sqrt(power)[..., None], axes=(1, 2)).real
    image = as_uint8(0.15 * (x @ COLOURS.T)[:, :side, :side])
    g = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    dense = power.mean() / (0.2**2 + g**2) / np.mean(1.0 / (0.2**2 + f**2))
    colour = np.linalg.eigvalsh(0.15**2 * COLOURS @ COLOURS.T)
    want = np.sort(np.outer(dense.ravel(), colour).ravel())[::-1]
    found = s.radial(image).variances
    # A ring is one step wide, which matters to the slow ones; rounding adds 5e-6.
    np.testing.assert_allclose(found[200:2500], want[200:2500], rtol=0.1)


def test_patches_tile_the_image():
    """Each quarter is one constant: four patches without variance inside them."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (300, 2, 2, 1))
    image = levels.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    found = s.of_patches(image, 4, 2)
    assert found.units == 4 and len(found.variances) == 16
    assert found.variances[1] < 1e-9 * found.variances[0]


@pytest.mark.parametrize(
    ("shape", "cell", "side"),
    [
        ((64, 64, 3), 4, 32),
        ((512, 512, 3), 16, 32),
        ((96, 64, 3), 8, 32),
        ((8, 8, 1), 2, 8),
        ((40, 40, 3), 4, 20),
        ((128, 128, 3), 64, 0),
    ],
)
def test_patches_are_whole_cells_that_fit(shape, cell, side):
    assert s.patch_side(shape, cell) == side


def test_each_patch_varies_around_its_own_part_of_the_mean_image():
    """Four quarters of different brightness, and the same white noise in each."""
    bright = np.kron([[0, 60], [90, 120]], np.ones((4, 4)))[..., None].astype(np.uint8)
    found = s.of_patches(white((8, 8, 1), 3000) // 2 + bright, 4, 2)
    np.testing.assert_allclose(found.variances, found.variances.mean(), rtol=0.3)


def test_of_many_patches_a_part_says_the_same(monkeypatch):
    image = white((8, 8, 1), 1500)
    all_of_them = s.of_patches(image, 2, 2)
    monkeypatch.setattr(s, "MOST_PATCHES", 4000)
    part = s.of_patches(image, 2, 2)
    assert "of 4000 patches" in part.estimator
    np.testing.assert_allclose(part.variances, all_of_them.variances, rtol=0.1)


def test_the_limit_leaves_the_small_directions_uncoded():
    free = s.Spectrum(np.array([4.0, 1.0, 0.25]), 2.0, "by hand")
    tight = s.Spectrum(np.array([4.0, 1.0, 0.25]), 2.0, "by hand", limit=1)
    assert (free.dimensions, free.coded(2.0), tight.coded(2.0)) == (6, 4, 2)
    np.testing.assert_allclose(free.bits(2.0), 2 * (1.5 + 0.5))
    np.testing.assert_allclose(tight.bits(2.0), 2 * 1.5)
    np.testing.assert_allclose(free.mse(2.0), (0.5 + 0.5 + 0.25) / 3)
    np.testing.assert_allclose(tight.mse(2.0), (0.5 + 1.0 + 0.25) / 3)


@pytest.mark.parametrize("count", [1, 5])
def test_images_that_do_not_differ_are_refused(count):
    with pytest.raises(DataError, match="do not differ"):
        s.radial(np.full((count, 4, 4, 1), 9, np.uint8))
