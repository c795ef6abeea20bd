"""Stationary, isotropic spectra: one variance for each radial frequency and color."""

import dataclasses
import math

import numpy as np

from ul.planning.spectrum import Spectrum, chunks, mean_and_variance


@dataclasses.dataclass(frozen=True)
class RingSpectrum:
    """Variances by radial frequency, in -1..1 pixel units.

    rings: [R, C], the variances of a Fourier coefficient (of the unitary transform) of
      1, 2, ... R cycles per shorter side, for each of C uncorrelated colors.
    constant: [C], those of frequency 0.
    shape: (H, W) of the images in pixels.
    """

    rings: np.ndarray
    constant: np.ndarray
    shape: tuple[int, int]
    description: str

    def at(self, height: int, width: int) -> Spectrum:
        """Return the spectrum of these images at another size, which must not be larger.

        An image that is reduced without aliasing keeps its lower frequencies. The variance
        of a coefficient of a unitary transform is the power per frequency in cycles per
        pixel, which falls with the square of the reduction. The mean color keeps its
        variance, so its coefficient grows with the number of pixels.

        Raises:
          ValueError: the size is larger than that of the images.
        """
        side = min(self.shape)
        if min(height, width) > side:
            raise ValueError(
                f"the spectrum is of images of {side} pixels a side, and {height}x{width} "
                "is larger"
            )
        ring = np.minimum(_ring_of(height, width)[1:], len(self.rings))
        values = self.rings[ring - 1].ravel() * (min(height, width) / side) ** 2
        constant = self.constant * (height * width / math.prod(self.shape))
        variances = np.sort(np.append(values, constant))[::-1]
        return Spectrum(variances, 1.0, self.description)


def radial_spectrum(image: np.ndarray) -> Spectrum:
    """Estimate the spectrum of a stationary, isotropic model with the images' mean variance.

    On 32x32 photographs the bits were within 6 % of `image_spectrum` from 0.03 to 0.4
    bits/pixel, and 16 % above it at 1.5.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    return estimate(image).at(*image.shape[1:3])


def estimate(image: np.ndarray) -> RingSpectrum:
    """Estimate the variances by radial frequency of images, uint8 [N, H, W, C].

    The mean image is subtracted first. Frequency 0 is each image's own mean color, which
    needs no model; it is subtracted as well, and a Hann window suppresses the jumps between
    opposite edges. The cross-spectrum between the channels is averaged over images and over
    rings of equal radial frequency, 1/min(H, W) cycles per pixel wide; the C eigenvalues of
    a ring count once for each of its frequencies. Divided by the window's power, the high
    frequencies are right; the variance that is still missing belongs to the lowest ring,
    and one scale corrects what remains.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    count, height, width, channels = image.shape
    mean, variance = mean_and_variance(image)
    # The outermost points of a Hann window are zero and would waste small images.
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    cross = np.zeros((height, width, channels, channels))
    color_products = np.zeros((channels, channels))
    for chunk in chunks(image):
        x = (image[chunk] - mean) / 127.5
        color = x.mean(axis=(1, 2))
        color_products += color.T @ color
        x -= color[:, None, None]
        f = np.fft.fft2(x * window[..., None], axes=(1, 2))
        # The imaginary part is odd in the frequency, so it cancels within a ring.
        for c in range(channels):
            for d in range(channels):
                cross[..., c, d] += np.sum((f[..., c] * f[..., d].conj()).real, axis=0)
    constant = np.linalg.eigvalsh(color_products) * (height * width / (count - 1))
    constant = np.maximum(constant, 0.0)
    cross /= np.sum(np.square(window)) * (count - 1)
    rings, sizes = _ring_eigenvalues(cross)
    # A slow wave across the image is weak at its center, where the window is large.
    total = variance * image[0].size
    missing = total - constant.sum() - np.sum(sizes @ rings)
    lowest_sum = sizes[0] * rings[0].sum()
    if missing > 0 and lowest_sum > 0:
        rings[0] *= 1.0 + missing / lowest_sum
    scale = total / (constant.sum() + np.sum(sizes @ rings))
    description = (
        f"stationary, isotropic model of {count} images (power averaged over rings of "
        "equal frequency); edges, orientations and positions are ignored"
    )
    return RingSpectrum(rings * scale, constant * scale, (height, width), description)


def _ring_of(height: int, width: int) -> np.ndarray:
    """Return the ring of each frequency of a transform [H, W], flattened; the first is 0."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    ring = np.maximum(np.rint(radius * min(height, width)).astype(int), 1).ravel()
    ring[0] = 0
    return ring


def _ring_eigenvalues(cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues [R, C] of ring-averaged cross-spectra and the sizes [R].

    `cross` is [H, W, C, C]; frequency 0 is left out.
    """
    height, width, channels, _ = cross.shape
    ring = _ring_of(height, width)[1:] - 1
    size = np.bincount(ring)
    matrices = np.zeros((len(size), channels, channels))
    np.add.at(matrices, ring, cross.reshape(-1, channels, channels)[1:])
    matrices /= np.maximum(size, 1)[:, None, None]
    return np.maximum(np.linalg.eigvalsh(matrices), 0.0), size
