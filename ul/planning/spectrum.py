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
from scipy import linalg

from ul.core.errors import DataError
from ul.diffusion import waterfilling
from ul.planning import entropy

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
    variance as error. `description` names the estimator and the data. `entropy_ratio` is
    the entropy power of the directions divided by their variance (entropy.py), or None
    where it was not measured.
    """

    variances: np.ndarray
    blocks_per_image: float
    description: str
    max_coded: int | None = None
    entropy_ratio: float | None = None

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
        That is exact for Gaussian data. In other data the entropy power takes the place of
        s^2: values that concentrate at some places need no more room between them than
        the noise of the latents makes necessary.
        """
        ratio = 1.0 if self.entropy_ratio is None else self.entropy_ratio
        powers = ratio * self.codable_variances
        energy = np.sum(np.maximum(precision * powers - 1.0, 0.0))
        return float(
            self.blocks_per_image * energy * math.exp(-latent_logsnr) / num_elements
        )

    def num_coded(self, precision: float) -> int:
        """Return the number of directions of an image that get bits."""
        coded = waterfilling.coded_directions(self.codable_variances, precision)
        return round(self.blocks_per_image * int(coded))


def image_spectrum(image: np.ndarray, *, measure_entropy: bool = False) -> Spectrum:
    """Estimate the spectrum from the covariance of whole images.

    `measure_entropy` adds the ratio of entropies, which takes seconds.

    Raises:
      DataError: there is only one image, or all images are equal.
    """
    mean, variance = mean_and_variance(image)
    rows = _CenteredRows(image.reshape(len(image), -1), mean.reshape(1, -1))
    covariance = rows.covariance()
    values, shrinkage = _shrunk_eigenvalues(rows, covariance)
    description = f"covariance of {len(image)} whole images{shrinkage}"
    ratio = _entropy_ratio(rows, covariance) if measure_entropy else None
    return Spectrum(_rescale(values, variance), 1.0, description, entropy_ratio=ratio)


def patch_spectrum(
    image: np.ndarray, side: int, cell: int, *, measure_entropy: bool = False
) -> Spectrum:
    """Estimate the spectrum from the covariance of the square patches that tile an image.

    `cell` is the width of one latent cell in pixels. What neighboring patches share is
    counted in each of them, so the bits are overestimated. Of more than MAX_PATCHES
    patches a random subset is used. `measure_entropy` is as for `image_spectrum`.

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
    rows = _CenteredRows(
        patches[indices], _tiles(mean[None], side), indices % patches_per_image
    )
    covariance = rows.covariance()
    values, shrinkage = _shrunk_eigenvalues(rows, covariance)
    ratio = _entropy_ratio(rows, covariance) if measure_entropy else None
    cells = side // cell
    description = (
        f"covariance of {len(indices)} patches of {side}x{side} pixels ({cells}x{cells} "
        f"latent cells) from {len(image)} images{shrinkage}; what neighboring patches "
        "share is ignored, so the bits are overestimated"
    )
    return Spectrum(
        _rescale(values, variance),
        float(patches_per_image),
        description,
        entropy_ratio=ratio,
    )


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


@dataclasses.dataclass(frozen=True)
class _CenteredRows:
    """Rows of values [n, D] in 0..255; row i is centered by means[mean_index[i]]."""

    x: np.ndarray
    means: np.ndarray
    mean_index: np.ndarray | None = None

    def __getitem__(self, rows) -> np.ndarray:
        """Return centered rows in -1..1 pixel units."""
        index = 0 if self.mean_index is None else self.mean_index[rows]
        return (self.x[rows] - self.means[index]) / 127.5

    def parts(self) -> Iterator[np.ndarray]:
        """Yield all centered rows in order, a part at a time."""
        for chunk in chunks(self.x):
            yield self[chunk]

    def covariance(self) -> np.ndarray:
        """Return the covariance of the values, [D, D]."""
        products = sum(part.T @ part for part in self.parts())
        return np.asarray(products) / len(self.x)


def _shrunk_eigenvalues(
    rows: _CenteredRows, covariance: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return the eigenvalues of the covariance of rows and a note on their shrinkage.

    With few rows per dimension the eigenvalues are shrunk towards their mean by the weight
    of Ledoit and Wolf (2004), which is (sum |x|^4 / n - |S|^2) / (n |S - mean(S) I|^2) for
    the covariance S of n rows. Without shrinkage the note is empty.
    """
    n, dimensions = rows.x.shape
    values = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    if n >= MIN_EXAMPLES_PER_DIMENSION * dimensions:
        return values, ""
    fourth = sum(
        float(np.sum(np.square(np.sum(np.square(part), axis=1))))
        for part in rows.parts()
    )
    spread = float(np.sum(np.square(values - values.mean())))
    noise = (fourth / n - float(np.sum(np.square(values)))) / n
    weight = min(1.0, max(0.0, noise) / spread) if spread > 0 else 1.0
    return (
        (1.0 - weight) * values + weight * values.mean(),
        f", shrunk towards their mean by {weight:.2g} (Ledoit-Wolf)",
    )


def _entropy_ratio(rows: _CenteredRows, covariance: np.ndarray) -> float | None:
    """Return the ratio of entropies along the directions with the largest variances."""
    size = len(covariance)
    largest = [max(0, size - entropy.MAX_DIRECTIONS), size - 1]
    _, vectors = linalg.eigh(covariance, subset_by_index=largest)
    values = rows[np.arange(min(len(rows.x), entropy.MAX_ROWS))]
    # Pixels are integers; uniform noise of one step makes them continuous.
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, values.shape) / 127.5
    return entropy.entropy_ratio((values + noise) @ vectors)
