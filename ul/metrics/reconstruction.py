"""Similarity of images and their reconstructions: PSNR and SSIM per image."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ul.diffusion import waterfilling

PEAK = 255.0
# Values in -1..1 have a range of 2.
UNIT_PEAK = 2.0
# An error of zero counts as that of rounding to whole levels, so that PSNR is finite.
ROUNDING_MSE = 1.0 / 12.0
GAUSSIAN_WINDOW_SIZE = 11
GAUSSIAN_SIGMA = 1.5
MAX_FLAT_WINDOW_SIZE = 7


def mse(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Return the mean squared error [N] of each pair, in squared levels of 0..255.

    Both are uint8 images [N, H, W, C] or clips [N, T, H, W, C].
    """
    error = image.astype(np.float64) - reconstruction.astype(np.float64)
    return np.mean(np.square(error), axis=tuple(range(1, image.ndim)))


def psnr_from_mse(error):
    """Return 10 log10(255^2 / error); errors below 1/12 (rounding) count as 1/12."""
    return 10.0 * np.log10(PEAK**2 / np.maximum(error, ROUNDING_MSE))


def psnr_db(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Return the PSNR [N] of each pair of uint8 images [N, H, W, C]."""
    return psnr_from_mse(mse(image, reconstruction))


def pooled_psnr_db(image: np.ndarray, reconstruction: np.ndarray) -> float:
    """Return the PSNR of the mean squared error over all images together.

    This is the value to compare with a distortion in closed form; the mean of the PSNR of
    each image is higher.
    """
    return float(psnr_from_mse(np.mean(mse(image, reconstruction))))


def mean_over_frames(
    metric: Callable, image: np.ndarray, reconstruction: np.ndarray
) -> np.ndarray:
    """Return a metric of pairs of images [N]; for clips, its mean over the frames."""
    size = image.shape[-3:]
    values = metric(image.reshape(-1, *size), reconstruction.reshape(-1, *size))
    return np.asarray(values).reshape(len(image), -1).mean(1)


def ssim_window_size(shape: tuple[int, ...]) -> int:
    """Return 11 (a Gaussian window) if it fits images [..., H, W, C], else a smaller size.

    The smaller window is flat, of 7 pixels or of the largest odd size that fits.
    """
    side = min(shape[-3:-1])
    if side >= GAUSSIAN_WINDOW_SIZE:
        return GAUSSIAN_WINDOW_SIZE
    side = min(side, MAX_FLAT_WINDOW_SIZE)
    return side - 1 + side % 2


def ssim_description(shape: tuple[int, ...]) -> str:
    """Return a description of the SSIM that `ssim` computes for images of this shape."""
    window = ssim_window_size(shape)
    if window == GAUSSIAN_WINDOW_SIZE:
        return f"Gaussian window {window}, sigma {GAUSSIAN_SIGMA}, range 255"
    return f"flat window {window} (images below {GAUSSIAN_WINDOW_SIZE} wide), range 255"


def ssim(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Return the structural similarity [N] of each pair of uint8 images [N, H, W, C].

    It is the mean over channels and over all windows inside the image. The window is
    Gaussian and the covariance that of the population, as in Wang et al. 2004, eq. 13 with
    K1 = 0.01 and K2 = 0.03. Images too small for that window (8x8 digits) get a flat
    window and the covariance of a sample; those values are not comparable with the others.
    """
    size = ssim_window_size(image.shape[1:])
    if size == GAUSSIAN_WINDOW_SIZE:
        offset = np.arange(size) - size // 2
        weights = np.exp(-0.5 * (offset / GAUSSIAN_SIGMA) ** 2)
        unbias = 1.0
    else:
        weights, unbias = np.ones(size), size**2 / (size**2 - 1)
    window = tuple(weights / weights.sum())
    return np.asarray(_ssim(image, reconstruction, window, unbias), np.float64)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _ssim(images, reconstructions, window: tuple[float, ...], unbias: float):
    """Return the SSIM [N] with a separable window [size] whose sum is 1.

    unbias: factor on the second moments, which makes them those of a sample.
    """
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    down, across = (_band_matrix(size, window) for size in images.shape[1:3])

    # Products with band matrices, because XLA's convolution of one channel is slow on CPUs.
    def window_mean(x):  # [channels, H, W]
        rows = jnp.einsum("chw,wv->chv", x, across, precision="highest")
        return jnp.einsum("chv,hu->cuv", rows, down, precision="highest")

    def ssim_of_pair(pair):
        x, y = (jnp.moveaxis(a.astype(jnp.float32), -1, 0) for a in pair)
        # Second moments around the image's mean: those around 0 cancel in float32.
        center = x.mean((1, 2), keepdims=True)
        dx, dy = x - center, y - center
        mx, my = window_mean(dx), window_mean(dy)
        xx = unbias * (window_mean(dx * dx) - mx * mx)
        yy = unbias * (window_mean(dy * dy) - my * my)
        xy = unbias * (window_mean(dx * dy) - mx * my)
        mx, my = mx + center, my + center
        numerator = (2 * mx * my + c1) * (2 * xy + c2)
        return jnp.mean(numerator / ((mx * mx + my * my + c1) * (xx + yy + c2)))

    # In small batches: the maps of one image take forty times its bytes.
    return jax.lax.map(ssim_of_pair, (images, reconstructions), batch_size=16)


def _band_matrix(size: int, window: tuple[float, ...]) -> np.ndarray:
    """Return the matrix [size, size - len(window) + 1] of a window's means along one side."""
    matrix = np.zeros((size, size - len(window) + 1), np.float32)
    for offset, weight in enumerate(window):
        matrix[np.arange(matrix.shape[1]) + offset, np.arange(matrix.shape[1])] = weight
    return matrix


def covariance_spectrum(image: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of the covariance of uint8 images, the largest first.

    Pixels are scaled to -1..1.
    """
    x = image.reshape(len(image), -1).astype(np.float64) / 127.5 - 1.0
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(x, rowvar=False)))
    return np.maximum(values[::-1], 0.0)


def gaussian_psnr_db(
    variances: np.ndarray, rate_bits: float, *, posterior_samples: bool = True
) -> float:
    """Return the PSNR that reconstructions of Gaussian data would have at a given rate.

    The distortion is that of reverse water-filling on `variances` (values in -1..1). It is
    doubled for decoders that return `posterior_samples` rather than the posterior mean.
    """
    precision = waterfilling.precision_for_rate(variances, rate_bits)
    distortion = float(waterfilling.distortion(variances, precision))
    return posterior_sample_psnr_db(
        distortion if posterior_samples else distortion / 2, len(variances)
    )


def posterior_sample_psnr_db(distortion: float, dimensions: int) -> float:
    """Return the PSNR of posterior samples, given the distortion of the posterior mean.

    `distortion` is the squared error of the mean, summed over the dimensions; samples have
    twice that error.
    """
    return float(10.0 * np.log10(UNIT_PEAK**2 * dimensions / (2.0 * distortion)))
