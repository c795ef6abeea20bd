"""Covariance spectra: against known processes, scikit-learn and each other."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from ul.core.errors import DataError
from ul.diffusion import waterfilling
from ul.metrics import reconstruction
from ul.planning import radial
from ul.planning import spectrum as spectra

COLORS = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.6, 0.3, 0.2]])


def as_uint8(x):
    """Round pixels in -1..1 to uint8."""
    assert np.abs(x).max() <= 1.0, "clipping would change the spectrum of the process"
    return np.round((x + 1.0) * 127.5).astype(np.uint8)


def white_noise(shape, count, std=0.15, seed=0):
    """Return images of independent Gaussian pixels."""
    rng = np.random.default_rng(seed)
    return as_uint8(np.clip(rng.normal(scale=std, size=(count, *shape)), -1, 1))


def isotropic(side, count, length, std, seed=0):
    """Return images with covariance std^2 exp(-distance / length), and that covariance."""
    grid = np.meshgrid(np.arange(side), np.arange(side))
    position = np.stack(grid, -1).reshape(-1, 2)
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    covariance = std**2 * np.exp(-distance / length)
    x = np.random.default_rng(seed).normal(size=(count, side * side))
    x = x @ np.linalg.cholesky(covariance).T
    return as_uint8(x.reshape(count, side, side, 1)), covariance


def total_variance(spectrum):
    return spectrum.variances.sum() * spectrum.blocks_per_image


def pixel_variance(image):
    x = image.reshape(len(image), -1) / 127.5 - 1.0
    return x.var(axis=0, ddof=1).sum()


ESTIMATORS = {
    "images": spectra.image_spectrum,
    "patches": lambda image: spectra.patch_spectrum(image, 4, 2),
    "radial": radial.radial_spectrum,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_white_noise_has_one_variance_in_as_many_directions_as_values(name):
    image = white_noise((8, 8, 3), 3000)
    spectrum = ESTIMATORS[name](image)
    assert spectrum.image_values == 192
    np.testing.assert_allclose(spectrum.variances.mean(), 0.15**2, rtol=0.02)
    # Sample eigenvalues reach (1 + sqrt(192 / 3000))^2 = 1.57 times the variance.
    np.testing.assert_allclose(spectrum.variances, 0.15**2, rtol=0.6)
    assert np.all(np.diff(spectrum.variances) <= 0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_variances_sum_to_those_of_the_pixels(name):
    """Holds even if the mean image varies and one side has more variance."""
    ramp = np.linspace(0.1, 1.0, 8)[:, None, None]
    image = white_noise((8, 8, 3), 60).astype(np.float64) - 127.5
    image = np.round(100.0 + 60.0 * ramp + ramp * image).astype(np.uint8)
    np.testing.assert_allclose(
        total_variance(ESTIMATORS[name](image)), pixel_variance(image), rtol=1e-9
    )


def test_whole_images_give_the_spectrum_of_the_reconstruction_metric():
    image = white_noise((4, 4, 1), 400)
    np.testing.assert_allclose(
        spectra.image_spectrum(image).variances,
        reconstruction.covariance_spectrum(image),
    )


def test_few_examples_are_shrunk_as_by_ledoit_and_wolf():
    """With rank 3 in 192 dimensions from 40 images no eigenvalue becomes 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) @ rng.normal(scale=0.08, size=(3, 192))
    image = as_uint8(x.reshape(40, 8, 8, 3))
    spectrum = spectra.image_spectrum(image)
    flat = image.reshape(40, -1) / 127.5 - 1.0
    matrix, shrinkage = ledoit_wolf(flat)
    expected = np.linalg.eigvalsh(matrix)[::-1] * 40 / 39
    np.testing.assert_allclose(spectrum.variances, expected, rtol=1e-6)
    np.testing.assert_allclose(
        total_variance(spectrum), pixel_variance(image), rtol=1e-9
    )
    assert spectrum.variances[-1] > 0
    assert f"by {shrinkage:.2g}" in spectrum.description
    unshrunk = reconstruction.covariance_spectrum(image)
    assert spectrum.variances[0] < unshrunk[0]
    many = spectra.image_spectrum(white_noise((2, 2, 1), 50))
    assert "Ledoit" not in many.description


@pytest.mark.parametrize("precision", [30.0, 300.0])
def test_bits_of_a_stationary_process_are_right(precision):
    """Compares each estimate with the exact covariance of an isotropic process."""
    image, covariance = isotropic(16, 3000, length=3.0, std=0.2)
    true_bits = waterfilling.rate_bits(np.linalg.eigvalsh(covariance), precision)
    np.testing.assert_allclose(
        spectra.image_spectrum(image).bits(precision), true_bits, rtol=0.03
    )
    # The model is approximate: waves do not have whole periods in 16 pixels.
    np.testing.assert_allclose(
        radial.radial_spectrum(image).bits(precision), true_bits, rtol=0.05
    )
    patches = spectra.patch_spectrum(image, 8, 4).bits(precision)
    assert true_bits < patches < 2.0 * true_bits


def test_rings_give_the_known_spectrum_and_the_eigenvalues_of_the_channels():
    """Noise with power 1 / (f0^2 + f^2) and correlated channels, cut from a torus."""
    rng, size, side = np.random.default_rng(0), 64, 32
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    power = 1.0 / (0.2**2 + f**2)
    power /= power.mean()
    noise = np.fft.fft2(rng.normal(size=(500, size, size, 3)), axes=(1, 2))
    x = np.fft.ifft2(noise * np.sqrt(power)[..., None], axes=(1, 2)).real
    image = as_uint8(0.15 * (x @ COLORS.T)[:, :side, :side])
    g = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    density = power.mean() / (0.2**2 + g**2) / np.mean(1.0 / (0.2**2 + f**2))
    color = np.linalg.eigvalsh(0.15**2 * COLORS @ COLORS.T)
    expected = np.sort(np.outer(density.ravel(), color).ravel())[::-1]
    variances = radial.radial_spectrum(image).variances
    # The width of a ring matters at low frequencies; rounding to uint8 adds 5e-6.
    np.testing.assert_allclose(variances[200:2500], expected[200:2500], rtol=0.1)


def test_patches_tile_the_image():
    """Each quarter is constant, so its patch has no variance around its mean."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (300, 2, 2, 1))
    image = levels.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    spectrum = spectra.patch_spectrum(image, 4, 2)
    assert spectrum.blocks_per_image == 4 and len(spectrum.variances) == 16
    assert spectrum.variances[1] < 1e-9 * spectrum.variances[0]


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
def test_the_largest_patch_is_whole_cells_that_tile_the_image(shape, cell, side):
    assert spectra.largest_patch_side(shape, cell) == side


def test_each_patch_varies_around_its_own_part_of_the_mean_image():
    """The quarters differ in brightness and have the same white noise."""
    bright = np.kron([[0, 60], [90, 120]], np.ones((4, 4)))[..., None].astype(np.uint8)
    image = white_noise((8, 8, 1), 3000) // 2 + bright
    variances = spectra.patch_spectrum(image, 4, 2).variances
    np.testing.assert_allclose(variances, variances.mean(), rtol=0.3)


def test_a_subset_of_many_patches_gives_the_same_spectrum(monkeypatch):
    image = white_noise((8, 8, 1), 1500)
    all_patches = spectra.patch_spectrum(image, 2, 2)
    monkeypatch.setattr(spectra, "MAX_PATCHES", 4000)
    subset = spectra.patch_spectrum(image, 2, 2)
    assert "of 4000 patches" in subset.description
    np.testing.assert_allclose(subset.variances, all_patches.variances, rtol=0.1)


def test_the_limit_leaves_the_small_directions_uncoded():
    variances = np.array([4.0, 1.0, 0.25])
    free = spectra.Spectrum(variances, 2.0, "by hand")
    limited = spectra.Spectrum(variances, 2.0, "by hand", max_coded=1)
    assert free.image_values == 6
    assert (free.num_coded(2.0), limited.num_coded(2.0)) == (4, 2)
    np.testing.assert_allclose(free.bits(2.0), 2 * (1.5 + 0.5))
    np.testing.assert_allclose(limited.bits(2.0), 2 * 1.5)
    np.testing.assert_allclose(free.mse(2.0), (0.5 + 0.5 + 0.25) / 3)
    np.testing.assert_allclose(limited.mse(2.0), (0.5 + 1.0 + 0.25) / 3)


@pytest.mark.parametrize("count", [1, 5])
def test_images_that_do_not_differ_are_refused(count):
    with pytest.raises(DataError, match="at least two different training images"):
        radial.radial_spectrum(np.full((count, 4, 4, 1), 9, np.uint8))


def test_the_variance_of_the_latents_is_that_of_the_coded_directions():
    """With P = 2 the gains leave (P s^2 - 1) e^-5: 7, 1 and, below the water level, 0."""
    spectrum = spectra.Spectrum(np.asarray([4.0, 1.0, 0.25]), 2.0, "by hand")
    expected = 2 * (7 + 1) * np.exp(-5.0) / 8
    np.testing.assert_allclose(spectrum.latent_variance(2.0, 8, 5.0), expected)
    # The rate is the information of z_0, the sum of 1/2 log2(1 + g^2 s^2 e^5).
    signal = np.asarray([7.0, 1.0])
    np.testing.assert_allclose(spectrum.bits(2.0), 2 * np.sum(np.log2(1 + signal)) / 2)


@pytest.mark.parametrize("shape", [(16, 16), (16, 32), (64, 8)])
def test_the_radial_spectrum_has_the_variance_of_the_pixels(shape):
    image = np.random.default_rng(0).normal(128.0, 20.0, (64, *shape, 1))
    image = (image + np.random.default_rng(1).normal(0, 9.0, (64, 1, 1, 1))).round()
    spectrum = radial.radial_spectrum(image.clip(0, 255).astype(np.uint8))
    expected = (20.0**2 + 9.0**2) / 127.5**2
    np.testing.assert_allclose(spectrum.variances.mean(), expected, rtol=0.1)
