"""Array rearrangements that more than one room needs."""

import math

import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, Float, UInt8, typechecked


@typechecked
def to_unit(
    image: UInt8[Array, "B *grid C"] | Float[Array, "B *grid C"],
) -> Float[Array, "B *grid C"]:
    """Pixels 0..255 to float32 -1..1; levels between whole ones may be floats."""
    return image.astype(jnp.float32) / 127.5 - 1.0


@typechecked
def to_uint8(x: Float[Array, "B *grid C"]) -> UInt8[Array, "B *grid C"]:
    """-1..1 to pixels 0..255, rounded and clipped: the inverse of `to_unit`."""
    return jnp.clip(jnp.round((x.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(
        jnp.uint8
    )


# A side of a block on every axis of a grid, or one for each axis.
Block = int | tuple[int, ...]


def sides(block: Block, rank: int) -> tuple[int, ...]:
    """Of a block, on each of the `rank` axes of a grid: (H, W), or (T, H, W)."""
    return (block,) * rank if isinstance(block, int) else block


def space(side: int, rank: int) -> tuple[int, ...]:
    """A block of `side` x `side` of one frame."""
    return (1,) * (rank - 2) + (side, side)


@typechecked
def space_to_depth(
    x: Float[Array, "B *grid C"], block: Block
) -> Float[Array, "B *g c"]:
    """Blocks of pixels become channels."""
    n, *grid, channels = x.shape
    block = sides(block, len(grid))
    small = [size // side for size, side in zip(grid, block, strict=True)]
    # B, then (cells, side) of each axis, C: the sides go to the end, in order.
    pairs = [n for pair in zip(small, block, strict=True) for n in pair]
    cells, inside = range(1, 2 * len(grid), 2), range(2, 2 * len(grid) + 1, 2)
    x = x.reshape(n, *pairs, channels)
    x = x.transpose(0, *cells, *inside, 2 * len(grid) + 1)
    return x.reshape(n, *small, math.prod(block) * channels)


@typechecked
def depth_to_space(
    x: Float[Array, "B *g c"], block: Block
) -> Float[Array, "B *grid C"]:
    """The inverse of `space_to_depth`."""
    n, *small, channels = x.shape
    rank, block = len(small), sides(block, len(small))
    x = x.reshape(n, *small, *block, channels // math.prod(block))
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    x = x.transpose(0, *pairs, 2 * rank + 1)
    grid = [size * side for size, side in zip(small, block, strict=True)]
    return x.reshape(n, *grid, channels // math.prod(block))


def pad_rows(batch: dict, to: int) -> dict:
    """A host batch padded to `to` rows; its `mask` is 1 on the rows that are real.

    Padding repeats the last row, so that no network sees values out of range.
    """
    (n,) = {len(v) for v in batch.values()}
    extra = to - n
    padded = {
        k: np.concatenate([v, np.repeat(v[-1:], extra, axis=0)]) if extra else v
        for k, v in batch.items()
    }
    padded["mask"] = (np.arange(to) < n).astype(np.float32)
    return padded
