"""Covariance spectra of images, from which water-filling predicts rate and distortion.

There are three estimators: the covariance of whole images, where one matrix can hold it; the
covariance of patches; and a stationary, isotropic model (radial.py). Each takes uint8 images
[N, H, W, C] and returns variances around the mean image in -1..1 pixel units, whose mean is
the mean variance of a pixel. Everything is computed in float64 on the host.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from ul.core.errors import DataError
from ul.diffusion import waterfilling

# With fewer examples per dimension than this, the eigenvalues are shrunk.
MIN_EXAMPLES_PER_DIMENSION = 10
# A larger covariance matrix is too slow and needs too many examples.
MAX_IMAGE_VALUES = 4096
MAX_PATCH_VALUES = 3072
MAX_PATCHES = 16_384
# Values converted to float64 at a time.
VALUES_PER_CHUNK = 2**23
# Pixels are in -1..1, so this is the peak of the PSNR.
PIXEL_RANGE = 2.0


def psnr_db(mse: float) -> float:
    """Return the PSNR in dB of a mean squared error of pixels in -1..1."""
    return 10.0 * math.log10(PIXEL_RANGE**2 / mse)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Variances of the uncorrelated directions of one block, largest first.

    A block is a whole image or a patch, and `blocks_per_image` of them make up an image.
    At most `max_coded` directions of a block can be coded; the others keep their whole
    variance as error. `description` names the estimator and the data.
    """

    variances: np.ndarray
    blocks_per_image: float
    description: str
    max_coded: int | None = None

    @property
    def image_values(self) -> int:
        """Number of values (pixels times channels) in an image."""
        return round(len(self.variances) * self.blocks_per_image)

    @property
    def codable_variances(self) -> np.ndarray:
        """Variances of the directions of a block that may get bits."""
        return self.variances[: self.max_coded]

    def bits(self, precision: float) -> float:
        """Return the bits per image when the coded directions have this precision."""
        return self.blocks_per_image * float(
            waterfilling.rate_bits(self.codable_variances, precision)
        )

    def mse(self, precision: float) -> float:
        """Return the squared error of the posterior mean, averaged over the values."""
        codable = self.codable_variances
        codable_error = float(waterfilling.distortion(codable, precision))
        uncodable_error = float(np.sum(self.variances[len(codable) :]))
        return (codable_error + uncodable_error) / len(self.variances)

    def mean_psnr_db(self, precision: float) -> float:
        """Return the PSNR of the posterior mean, whose distortion is D."""
        return psnr_db(self.mse(precision))

    def sample_psnr_db(self, precision: float) -> float:
        """Return the PSNR of a posterior sample, whose distortion is 2 D."""
        return psnr_db(2.0 * self.mse(precision))

    def latent_variance(
        self, precision: float, num_elements: int, latent_logsnr: float
    ) -> float:
        """Return the variance of the latents around their mean, per element.

        A coded direction of variance s^2 has the gain g^2 = (P - 1/s^2) e^-latent_logsnr
        (waterfilling.py), so it adds g^2 s^2 to the `num_elements` of an image's latent.
        """
        codable = self.codable_variances
        energy = np.sum(np.maximum(precision * codable - 1.0, 0.0))
        return float(
            self.blocks_per_image * energy * math.exp(-latent_logsnr) / num_elements
        )

    def num_coded(self, precision: float) -> int:
        """Return the number of directions of an image that get bits."""
        coded = waterfilling.coded_directions(self.codable_variances, precision)
        return round(self.blocks_per_image * int(coded))


def image_spectrum(image: np.ndarray) -> Spectrum:
    """Estimate the spectrum from the covariance of whole images.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    mean, variance = mean_and_variance(image)
    values, shrinkage = _covariance_eigenvalues(
        image.reshape(len(image), -1), mean.reshape(1, -1)
    )
    description = f"covariance of {len(image)} whole images{shrinkage}"
    return Spectrum(_rescale(values, variance), 1.0, description)


def patch_spectrum(image: np.ndarray, side: int, cell: int) -> Spectrum:
    """Estimate the spectrum from the covariance of the square patches that tile an image.

    `cell` is the width of one latent cell in pixels. What neighboring patches share is
    counted in each of them, so the bits are overestimated. Of more than MAX_PATCHES
    patches a random subset is used.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    mean, variance = mean_and_variance(image)
    patches = _tiles(image, side)
    patches_per_image = len(patches) // len(image)
    if len(patches) > MAX_PATCHES:
        rng = np.random.default_rng(0)
        indices = np.sort(rng.choice(len(patches), MAX_PATCHES, replace=False))
    else:
        indices = np.arange(len(patches))
    values, shrinkage = _covariance_eigenvalues(
        patches[indices], _tiles(mean[None], side), indices % patches_per_image
    )
    cells = side // cell
    description = (
        f"covariance of {len(indices)} patches of {side}x{side} pixels ({cells}x{cells} "
        f"latent cells) from {len(image)} images{shrinkage}; what neighboring patches "
        "share is ignored, so the bits are overestimated"
    )
    return Spectrum(_rescale(values, variance), float(patches_per_image), description)


def largest_patch_side(shape: tuple[int, ...], cell: int) -> int:
    """Return the side of the largest usable patch, or 0 if there is none.

    A usable patch is a whole number of latent cells wide, tiles the image and has at most
    MAX_PATCH_VALUES values.
    """
    sides = [
        side
        for side in range(cell, min(shape[:2]) + 1, cell)
        if not (shape[0] % side or shape[1] % side)
        and side * side * shape[2] <= MAX_PATCH_VALUES
    ]
    return max(sides, default=0)


def chunks(examples: np.ndarray) -> Iterator[slice]:
    """Yield slices of about VALUES_PER_CHUNK values that cover all examples in order."""
    rows = max(1, VALUES_PER_CHUNK // examples[0].size)
    for first in range(0, len(examples), rows):
        yield slice(first, first + rows)


def mean_and_variance(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean image in 0..255 and the mean variance of a pixel in -1..1 units.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    count = len(image)
    mean = image.mean(axis=0, dtype=np.float64)
    total = sum(
        float(np.sum(np.square((image[chunk] - mean) / 127.5)))
        for chunk in chunks(image)
    )
    if count < 2 or total == 0.0:
        got = (
            f"got {count}" if count < 2 else f"the {count} that were read are all equal"
        )
        raise DataError(
            f"The planner needs at least two different training images; {got}. Give a "
            "data source with more images."
        )
    return mean, total / mean.size / (count - 1)


def _rescale(values: np.ndarray, mean: float) -> np.ndarray:
    """Sort the values from largest to smallest, clip at 0, and scale to this mean."""
    values = np.sort(np.maximum(values, 0.0))[::-1]
    return values * (mean / values.mean())


def _tiles(image: np.ndarray, side: int) -> np.ndarray:
    """Cut [N, H, W, C] into the squares that tile it: [N tiles, values], by image."""
    count, height, width, channels = image.shape
    grid = image.reshape(count, height // side, side, width // side, side, channels)
    return grid.swapaxes(2, 3).reshape(-1, side * side * channels)


def _covariance_eigenvalues(
    x: np.ndarray, means: np.ndarray, mean_index: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """Return the eigenvalues of the covariance of rows `x` and a note on their shrinkage.

    `x` is [n, D] in 0..255; row i is centered by `means[mean_index[i]]`. With few rows
    per dimension the eigenvalues are shrunk towards their mean by the weight of Ledoit and
    Wolf (2004), which is (sum |x|^4 / n - |S|^2) / (n |S - mean(S) I|^2) for the covariance
    S of n rows. Without shrinkage the note is empty.
    """
    n, dimensions = x.shape
    mean_index = np.zeros(n, int) if mean_index is None else mean_index
    products, fourth = np.zeros((dimensions, dimensions)), 0.0
    for chunk in chunks(x):
        centered = (x[chunk] - means[mean_index[chunk]]) / 127.5
        products += centered.T @ centered
        fourth += float(np.sum(np.square(np.sum(np.square(centered), axis=1))))
    values = np.maximum(np.linalg.eigvalsh(products / n), 0.0)
    if n >= MIN_EXAMPLES_PER_DIMENSION * dimensions:
        return values, ""
    spread = float(np.sum(np.square(values - values.mean())))
    noise = (fourth / n - float(np.sum(np.square(values)))) / n
    weight = min(1.0, max(0.0, noise) / spread) if spread > 0 else 1.0
    return (
        (1.0 - weight) * values + weight * values.mean(),
        f", shrunk towards their mean by {weight:.2g} (Ledoit-Wolf)",
    )
