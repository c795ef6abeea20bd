"""Per-example changes. Each takes the generator of its example's global index."""

import numpy as np

from ul.core.errors import DataError


def crop(example: dict, rng: np.random.Generator, *, shape: tuple[int, ...]) -> dict:
    """A random part of `shape`, [H, W, C] or [T, H, W, C]; one of that size is unchanged.

    Drawn axis by axis: (first,) top, left.
    """
    image = example["image"]
    *sides, channels = shape
    if (
        image.ndim != len(shape)
        or image.shape[-1] != channels
        or any(has < wanted for has, wanted in zip(image.shape, sides, strict=False))
    ):
        raise DataError(
            f"an image is {list(image.shape)}, smaller or with other channels than "
            f"data.image_shape {list(shape)}"
        )
    part = []
    for has, wanted in zip(image.shape, sides, strict=False):
        first = rng.integers(has - wanted + 1)
        part.append(slice(first, first + wanted))
    return {**example, "image": image[tuple(part)]}


def mirror(example: dict) -> dict:
    """Left to right; a clip in every frame."""
    return {**example, "image": example["image"][..., ::-1, :]}


def flip(example: dict, rng: np.random.Generator) -> dict:
    """Mirrored, half of the time."""
    return mirror(example) if rng.random() < 0.5 else example
