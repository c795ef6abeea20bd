"""Transforms of single examples. Random ones take the generator of the example's index."""

import numpy as np

from ul.core.errors import DataError


def random_crop(
    example: dict, rng: np.random.Generator, *, shape: tuple[int, ...]
) -> dict:
    """Cut a random part of `shape`, [H, W, C] or [T, H, W, C], out of the image.

    The offsets are drawn axis by axis: the first frame, if any, then top, then left. An
    image of exactly this shape is unchanged.

    Raises:
      DataError: the image is smaller or has another number of axes or channels.
    """
    image = example["image"]
    sides = shape[:-1]
    if (
        image.ndim != len(shape)
        or image.shape[-1] != shape[-1]
        or any(size < side for size, side in zip(image.shape, sides, strict=False))
    ):
        raise DataError(
            f"Images must be at least as large as data.image_shape {shape} and have as many "
            f"channels; got an image of shape {image.shape}."
        )
    slices = []
    for size, side in zip(image.shape, sides, strict=False):
        first = rng.integers(size - side + 1)
        slices.append(slice(first, first + side))
    return {**example, "image": image[tuple(slices)]}


def flip_left_right(example: dict) -> dict:
    """Mirror the image, or every frame of a clip, left to right; `mirrored` records it."""
    image, mirrored = example["image"], example.get("mirrored", False)
    return {**example, "image": image[..., ::-1, :], "mirrored": not mirrored}


def defer_flip(example: dict) -> dict:
    """Return the example with its image as it was before a flip, if it has one.

    The training step mirrors the image if `mirrored` says so: on the host, copying a mirrored
    image into a batch takes longer than decoding it.
    """
    if "image" not in example:
        return example
    if not example.get("mirrored", False):
        return {**example, "mirrored": False}
    return {**flip_left_right(example), "mirrored": True}


def random_flip(example: dict, rng: np.random.Generator) -> dict:
    """Mirror the image left to right with probability one half."""
    return flip_left_right(example) if rng.random() < 0.5 else example
