"""Pixel scaling, space-to-depth and padding of batches."""

import math

import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, Float, UInt8, typechecked


@typechecked
def scale_pixels(
    image: UInt8[Array, "B *grid C"] | Float[Array, "B *grid C"],
) -> Float[Array, "B *grid C"]:
    """Scale pixels from 0..255 to float32 in -1..1.

    Float images may hold values between the 256 levels.
    """
    return image.astype(jnp.float32) / 127.5 - 1.0


@typechecked
def to_uint8(x: Float[Array, "B *grid C"]) -> UInt8[Array, "B *grid C"]:
    """Convert x in -1..1 to pixels 0..255, rounded and clipped.

    The inverse of `scale_pixels`.
    """
    return jnp.clip(jnp.round((x.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(
        jnp.uint8
    )


# The block's size on every axis of a grid, or one size for each axis.
BlockSize = int | tuple[int, ...]


def block_shape(block: BlockSize, rank: int) -> tuple[int, ...]:
    """Return the block's size on each of the `rank` grid axes: (H, W) or (T, H, W)."""
    return (block,) * rank if isinstance(block, int) else block


def spatial_block(size: int, rank: int) -> tuple[int, ...]:
    """Return the shape of a block of `size` x `size` pixels within one frame."""
    return (1,) * (rank - 2) + (size, size)


@typechecked
def space_to_depth(
    x: Float[Array, "B *grid C"], block: BlockSize
) -> Float[Array, "B *g c"]:
    """Move each block of pixels into the channels."""
    batch, *grid, channels = x.shape
    block = block_shape(block, len(grid))
    cells = [size // side for size, side in zip(grid, block, strict=True)]
    # Split every axis into (cells, pixels of a cell), then move the pixels to the end.
    pairs = [n for pair in zip(cells, block, strict=True) for n in pair]
    cell_axes = range(1, 2 * len(grid), 2)
    pixel_axes = range(2, 2 * len(grid) + 1, 2)
    x = x.reshape(batch, *pairs, channels)
    x = x.transpose(0, *cell_axes, *pixel_axes, 2 * len(grid) + 1)
    return x.reshape(batch, *cells, math.prod(block) * channels)


@typechecked
def depth_to_space(
    x: Float[Array, "B *g c"], block: BlockSize
) -> Float[Array, "B *grid C"]:
    """Move the channels of each cell back into a block of pixels.

    The inverse of `space_to_depth`.
    """
    batch, *cells, channels = x.shape
    rank, block = len(cells), block_shape(block, len(cells))
    x = x.reshape(batch, *cells, *block, channels // math.prod(block))
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    x = x.transpose(0, *pairs, 2 * rank + 1)
    grid = [size * side for size, side in zip(cells, block, strict=True)]
    return x.reshape(batch, *grid, channels // math.prod(block))


def pad_rows(batch: dict, num_rows: int) -> dict:
    """Pad a host batch to `num_rows` rows and add a `mask` that is 1 on the real rows.

    Padding repeats the last row, so that no network sees values out of range.
    """
    (real_rows,) = {len(v) for v in batch.values()}
    extra = num_rows - real_rows
    padded = {
        k: np.concatenate([v, np.repeat(v[-1:], extra, axis=0)]) if extra else v
        for k, v in batch.items()
    }
    padded["mask"] = (np.arange(num_rows) < real_rows).astype(np.float32)
    return padded
