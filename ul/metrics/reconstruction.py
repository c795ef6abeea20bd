"""How near reconstructions are: PSNR and SSIM per image."""

from collections.abc import Callable
from typing import Any

import numpy as np
from skimage import metrics

from ul.diffusion import waterfilling

PEAK = 255.0


def mse(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of uint8 images [N, H, W, C], or of clips; [N],
    levels squared."""
    error = image.astype(np.float64) - other.astype(np.float64)
    return np.mean(np.square(error), axis=tuple(range(1, image.ndim)))


def decibel(error):
    """10 log10(255^2 / error); no error is given that of rounding, 1/12 of a level
    squared."""
    return 10.0 * np.log10(PEAK**2 / np.maximum(error, 1.0 / 12.0))


def psnr_db(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """PSNR of each pair of uint8 images [N, H, W, C]; [N]."""
    return decibel(mse(image, other))


def pooled_psnr_db(image: np.ndarray, other: np.ndarray) -> float:
    """PSNR of all images together: what a distortion in closed form compares with (the
    mean of each image's PSNR is higher)."""
    return float(decibel(np.mean(mse(image, other))))


def of_frames(measure: Callable, image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A measure of pairs of images, of clips the mean over their frames; [N]."""
    size = image.shape[-3:]
    values = measure(image.reshape(-1, *size), other.reshape(-1, *size))
    return np.asarray(values).reshape(len(image), -1).mean(1)


GAUSSIAN_WINDOW = 11


def ssim_window(shape: tuple[int, ...]) -> int:
    """11 (Gaussian) where it fits; else flat, 7 or the largest odd one that fits."""
    side = min(shape[-3:-1])
    if side >= GAUSSIAN_WINDOW:
        return GAUSSIAN_WINDOW
    side = min(side, 7)
    return side - 1 + side % 2


def ssim_name(shape: tuple[int, ...]) -> str:
    """What `ssim` computes for images of this shape."""
    window = ssim_window(shape)
    if window == GAUSSIAN_WINDOW:
        return f"scikit-image, Gaussian window {window}, sigma 1.5, range 255"
    return f"scikit-image, flat window {window} (images below {GAUSSIAN_WINDOW} wide)"


def ssim(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """scikit-image's structural similarity of each pair; [N].

    The Gaussian window and the population's covariance of Wang et al. 2004; images that
    it does not fit (8x8 digits) get a flat window, whose values are another measure.
    """
    window = ssim_window(image.shape[1:])
    how: dict[str, Any] = {"win_size": window, "channel_axis": -1, "data_range": PEAK}
    if window == GAUSSIAN_WINDOW:
        how |= {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return np.asarray(
        [
            metrics.structural_similarity(a, b, **how)
            for a, b in zip(image, other, strict=True)
        ]
    )


def covariance_spectrum(image: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance of uint8 images, in -1..1 units, largest first."""
    x = image.reshape(len(image), -1).astype(np.float64) / 127.5 - 1.0
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(x, rowvar=False)))
    return np.maximum(values[::-1], 0.0)


def gaussian_psnr_db(
    variances: np.ndarray, rate_bits: float, *, sampled: bool = True
) -> float:
    """PSNR of reconstructions that Gaussian data would have at that rate.

    Reverse water-filling on `variances` (-1..1 units, so peak 2); the distortion of
    the mean is doubled where the decoder samples from the posterior.
    """
    precision = waterfilling.precision_for_rate(variances, rate_bits)
    distortion = float(waterfilling.distortion(variances, precision))
    return sampled_psnr_db(distortion if sampled else distortion / 2, len(variances))


def sampled_psnr_db(distortion: float, dimensions: int) -> float:
    """PSNR of posterior samples where the mean's summed squared error is `distortion`."""
    return float(10.0 * np.log10(2.0**2 * dimensions / (2.0 * distortion)))
