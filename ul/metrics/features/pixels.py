"""Features that need no pretrained network: the image itself, at 8x8."""

import numpy as np

from ul.core.errors import DataError

NAME = "pixels_8x8"


def fits(shape: tuple[int, ...]) -> bool:
    """Whether images [H, W, C] have 8x8 even areas."""
    return shape[0] % 8 == 0 and shape[1] % 8 == 0


def check(shape: tuple[int, int, int]) -> None:
    """Raises DataError for image shapes [H, W, C] that have no 8x8 even areas."""
    if not fits(shape):
        raise DataError(f"{NAME} needs sides divisible by 8, not {shape[0]}x{shape[1]}")


def features(image: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] to [N, 64 C] in -1..1: means of 8x8 even areas."""
    n, height, width, channels = image.shape
    areas = image.reshape(n, 8, height // 8, 8, width // 8, channels)
    # Summed as integers: no copy of all images in float64.
    total = areas.sum(axis=(2, 4), dtype=np.int64).reshape(n, -1)
    return total / (127.5 * (height // 8) * (width // 8)) - 1.0
