"""Per-example changes. Each takes the generator of its example's global index."""

import numpy as np

from ul.core.errors import DataError


def crop(
    example: dict, rng: np.random.Generator, *, shape: tuple[int, int, int]
) -> dict:
    """A random part of `shape`; an image of that size passes unchanged."""
    image = example["image"]
    height, width, channels = shape
    if (
        image.ndim != 3
        or image.shape[2] != channels
        or image.shape[0] < height
        or image.shape[1] < width
    ):
        raise DataError(
            f"an image is {list(image.shape)}, smaller or with other channels than "
            f"data.image_shape {list(shape)}"
        )
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    return {**example, "image": image[top : top + height, left : left + width]}


def mirror(example: dict) -> dict:
    """Left to right."""
    return {**example, "image": example["image"][:, ::-1]}


def flip(example: dict, rng: np.random.Generator) -> dict:
    """Mirrored, half of the time."""
    return mirror(example) if rng.random() < 0.5 else example
