"""PSNR and SSIM against scikit-image, and the PSNR of Gaussian data by hand."""

import numpy as np
import pytest
from skimage import metrics

from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.diffusion import waterfilling
from ul.metrics import reconstruction

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)
NOISY = np.clip(IMAGE + RNG.normal(scale=9, size=IMAGE.shape), 0, 255).astype(np.uint8)


def test_psnr_equals_that_of_scikit_image():
    expected = [
        metrics.peak_signal_noise_ratio(a, b) for a, b in zip(IMAGE, NOISY, strict=True)
    ]
    np.testing.assert_allclose(
        reconstruction.psnr_db(IMAGE, NOISY), expected, rtol=1e-9
    )


def test_psnr_of_a_known_error():
    """An error of 51 of 255 levels everywhere: 20 log10(5)."""
    image = np.full((1, 4, 4, 1), 100, np.uint8)
    np.testing.assert_allclose(
        reconstruction.psnr_db(image, image + 51), 20 * np.log10(5)
    )
    assert np.isfinite(reconstruction.psnr_db(image, image))


@pytest.mark.parametrize(
    ("side", "window"), [(64, 11), (11, 11), (10, 7), (6, 5), (5, 5)]
)
def test_the_ssim_window_fits_the_image(side, window):
    assert reconstruction.ssim_window_size((side, side)) == window


def test_ssim_is_1_for_equal_images():
    np.testing.assert_allclose(reconstruction.ssim(IMAGE, IMAGE), 1.0, rtol=1e-6)
    actual = reconstruction.ssim(IMAGE, NOISY)
    assert actual.shape == (3,) and np.all((actual > 0.5) & (actual < 1))


def smooth_pair(shape):
    """Return smooth bright images and noisy copies: their variances nearly cancel."""
    ramp = np.linspace(180, 250, shape[1])[None, :, None, None]
    image = np.broadcast_to(ramp, shape) + RNG.normal(scale=2, size=shape)
    noisy = image + RNG.normal(scale=4, size=shape)
    return (np.clip(x, 0, 255).astype(np.uint8) for x in (image, noisy))


@pytest.mark.parametrize("shape", [(3, 16, 24, 3), (20, 48, 48, 1), (2, 11, 13, 3)])
def test_ssim_equals_that_of_scikit_image(shape):
    """With Wang et al.'s Gaussian window, also for more images than one batch."""
    options = dict(channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5)
    image = RNG.integers(0, 256, shape, np.uint8)
    pairs = [smooth_pair(shape), (image, RNG.permutation(image)), (image, 255 - image)]
    for image, noisy in pairs:
        expected = [
            metrics.structural_similarity(a, b, use_sample_covariance=False, **options)
            for a, b in zip(image, noisy, strict=True)
        ]
        actual = reconstruction.ssim(image, noisy)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert "Gaussian window 11" in reconstruction.ssim_description(shape[1:])


def test_ssim_has_a_flat_window_below_eleven_pixels():
    image, noisy = IMAGE[:, :8, :8], NOISY[:, :8, :8]
    flat = [
        metrics.structural_similarity(a, b, win_size=7, channel_axis=-1, data_range=255)
        for a, b in zip(image, noisy, strict=True)
    ]
    np.testing.assert_allclose(reconstruction.ssim(image, noisy), flat, atol=1e-5)
    assert "flat window 7" in reconstruction.ssim_description((8, 8, 1))


def test_the_psnr_of_gaussian_data_by_hand():
    """Two directions of variance 1, one bit each: distortion 1/4 each, doubled."""
    np.testing.assert_allclose(
        reconstruction.gaussian_psnr_db(np.ones(2), 2.0),
        10 * np.log10(4 / (2 * 0.25)),
        rtol=1e-9,
    )


def test_the_psnr_of_gaussian_data_like_the_digits():
    """About 16.6 dB at 0.54 bits/pixel."""
    from ul.data.sources import digits

    source = digits.make_source("train", (8, 8, 1))
    image = np.stack([source[i]["image"] for i in range(len(source))])
    actual = reconstruction.gaussian_psnr_db(
        reconstruction.covariance_spectrum(image), 0.54 * 64
    )
    np.testing.assert_allclose(actual, 16.6, atol=0.1)


def test_the_spectrum_is_that_of_values_in_minus_1_to_1():
    image = np.zeros((2, 1, 2, 1), np.uint8)
    image[1, 0, 0, 0] = 255  # values -1 and 1: variance 2, divided by n - 1
    np.testing.assert_allclose(
        reconstruction.covariance_spectrum(image), [2.0, 0.0], atol=1e-12
    )


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ConfigError):
        waterfilling.precision_for_rate(np.ones(3), 0.0)


BREAKS = (
    Break(
        "the PSNR of samples without their doubled error",
        "ul/metrics/reconstruction.py",
        "dimensions / (2.0 * distortion)",
        "dimensions / distortion",
        "test_the_psnr_of_gaussian_data_by_hand",
    ),
)
