"""Features without a pretrained network: the image itself, reduced to 8x8."""

import numpy as np

from ul.core.errors import DataError

NAME = "pixels_8x8"


def supports_shape(shape: tuple[int, ...]) -> bool:
    """Return whether images [H, W, C] can be divided into 8x8 areas of equal size."""
    return shape[0] % 8 == 0 and shape[1] % 8 == 0


def check_shape(shape: tuple[int, int, int]) -> None:
    """Check that images [H, W, C] can be divided into 8x8 areas of equal size.

    Raises:
      DataError: a side is not divisible by 8.
    """
    if not supports_shape(shape):
        raise DataError(
            f"{NAME} needs sides divisible by 8; got {shape[0]}x{shape[1]}."
        )


def features(image: np.ndarray) -> np.ndarray:
    """Return the means over 8x8 equal areas [N, 64 C], in -1..1, of uint8 [N, H, W, C]."""
    n, height, width, channels = image.shape
    areas = image.reshape(n, 8, height // 8, 8, width // 8, channels)
    # Integer sums avoid a copy of all images in float64.
    total = areas.sum(axis=(2, 4), dtype=np.int64).reshape(n, -1)
    return total / (127.5 * (height // 8) * (width // 8)) - 1.0
