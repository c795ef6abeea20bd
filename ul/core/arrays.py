"""Array rearrangements that more than one room needs."""

import jax.numpy as jnp
import numpy as np

from ul.core.types import Array, Float, UInt8, typechecked


@typechecked
def to_unit(
    image: UInt8[Array, "B H W C"] | Float[Array, "B H W C"],
) -> Float[Array, "B H W C"]:
    """Pixels 0..255 to float32 -1..1; levels between whole ones may be floats."""
    return image.astype(jnp.float32) / 127.5 - 1.0


@typechecked
def to_uint8(x: Float[Array, "B H W C"]) -> UInt8[Array, "B H W C"]:
    """-1..1 to pixels 0..255, rounded and clipped: the inverse of `to_unit`."""
    return jnp.clip(jnp.round((x.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(
        jnp.uint8
    )


@typechecked
def space_to_depth(x: Float[Array, "B H W C"], block: int) -> Float[Array, "B h w c"]:
    """Blocks of block x block pixels become channels."""
    b, height, width, c = x.shape
    x = x.reshape(b, height // block, block, width // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        b, height // block, width // block, block * block * c
    )


@typechecked
def depth_to_space(x: Float[Array, "B h w c"], block: int) -> Float[Array, "B H W C"]:
    """The inverse of `space_to_depth`."""
    b, height, width, c = x.shape
    x = x.reshape(b, height, width, block, block, c // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        b, height * block, width * block, c // block**2
    )


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
