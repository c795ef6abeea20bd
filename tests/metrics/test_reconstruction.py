import numpy as np
import pytest
from skimage import metrics

from ul.core.errors import ConfigError
from ul.diffusion import waterfilling
from ul.metrics import reconstruction as r

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)
OTHER = np.clip(IMAGE + RNG.normal(scale=9, size=IMAGE.shape), 0, 255).astype(np.uint8)


def test_psnr_is_scikit_images():
    want = [
        metrics.peak_signal_noise_ratio(a, b) for a, b in zip(IMAGE, OTHER, strict=True)
    ]
    np.testing.assert_allclose(r.psnr_db(IMAGE, OTHER), want, rtol=1e-9)


def test_psnr_of_a_known_error():
    """Off by 51 of 255 everywhere: 20 log10(5)."""
    a = np.full((1, 4, 4, 1), 100, np.uint8)
    np.testing.assert_allclose(r.psnr_db(a, a + 51), 20 * np.log10(5))
    assert np.isfinite(r.psnr_db(a, a))


@pytest.mark.parametrize(
    ("side", "window"), [(64, 11), (11, 11), (10, 7), (6, 5), (5, 5)]
)
def test_ssim_window_fits(side, window):
    assert r.ssim_window((side, side)) == window


def test_ssim():
    np.testing.assert_allclose(r.ssim(IMAGE, IMAGE), 1.0)
    got = r.ssim(IMAGE, OTHER)
    assert got.shape == (3,) and np.all((got > 0.5) & (got < 1))


def test_ssim_is_that_of_wang_et_al_from_eleven_pixels_on():
    how = dict(channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5)
    want = [
        metrics.structural_similarity(a, b, use_sample_covariance=False, **how)
        for a, b in zip(IMAGE, OTHER, strict=True)
    ]
    np.testing.assert_allclose(r.ssim(IMAGE, OTHER), want, rtol=1e-12)
    assert "Gaussian window 11" in r.ssim_name((16, 16, 3))
    small, other = IMAGE[:, :8, :8], OTHER[:, :8, :8]
    flat = [
        metrics.structural_similarity(a, b, win_size=7, channel_axis=-1, data_range=255)
        for a, b in zip(small, other, strict=True)
    ]
    np.testing.assert_allclose(r.ssim(small, other), flat, rtol=1e-12)
    assert "flat window 7" in r.ssim_name((8, 8, 1))


def test_the_gaussian_bound_by_hand():
    """Two directions of variance 1, one bit each: distortion 1/4 of each, doubled."""
    np.testing.assert_allclose(
        r.gaussian_psnr_db(np.ones(2), 2.0), 10 * np.log10(4 / (2 * 0.25)), rtol=1e-9
    )


def test_the_gaussian_bound_of_the_digits():
    """Method of the issue: about 16.6 dB at 0.54 bits/pixel."""
    from ul.data.sources import basic

    source = basic.digits("train", (8, 8, 1))
    image = np.stack([source[i]["image"] for i in range(len(source))])
    got = r.gaussian_psnr_db(r.covariance_spectrum(image), 0.54 * 64)
    np.testing.assert_allclose(got, 16.6, atol=0.1)


def test_spectrum_is_in_units_of_the_network():
    image = np.zeros((2, 1, 2, 1), np.uint8)
    image[1, 0, 0, 0] = 255  # -1 and 1: variance 2 with n - 1
    np.testing.assert_allclose(r.covariance_spectrum(image), [2.0, 0.0], atol=1e-12)


def test_no_bits_no_bound():
    with pytest.raises(ConfigError):
        waterfilling.precision_for_rate(np.ones(3), 0.0)
