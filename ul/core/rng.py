"""Randomness by name: each run has one root key, and no key is carried or split."""

import zlib

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, Int, Key, typechecked


def stream(root, name: str, step=0):
    """Return the key of the stream `name` at `step`, a function of the arguments alone.

    The name is hashed into the key: another name gives other numbers.
    """
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


@typechecked
def row_keys(key: Key[Array, ""], row: Int[Array, " B"]) -> Key[Array, " B"]:
    """Return one key per row of a batch.

    The key of a row depends on its row number alone, and not on the other rows of the
    batch, the number of microbatches or the mesh.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, row)


@typechecked
def normal(
    key: Key[Array, ""], row: Int[Array, " B"], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Draw standard normal noise [B, *shape] in float32, row by row."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(
        row_keys(key, row)
    )


@typechecked
def uniform(key: Key[Array, ""], row: Int[Array, " B"]) -> Float[Array, " B"]:
    """Draw one uniform number in [0, 1) per row."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(
        row_keys(key, row)
    )
