"""Randomness by name: one root key a run, no carried keys, no split chains."""

import zlib

import jax
import jax.numpy as jnp

from ul.core.types import Array, Float, Int, Key, typechecked


def stream(root, name: str, step=0):
    """Key of stream `name` at `step`: a pure function of its arguments."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


@typechecked
def rows(key: Key[Array, ""], row: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per row of a batch.

    What row i draws depends on i alone: not on the batch it came in, the number
    of microbatches, or the mesh.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, row)


@typechecked
def normal(
    key: Key[Array, ""], row: Int[Array, " B"], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Standard normal noise [B, *shape], drawn per row in float32."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(rows(key, row))


@typechecked
def uniform(key: Key[Array, ""], row: Int[Array, " B"]) -> Float[Array, " B"]:
    """Uniform numbers in [0, 1), one per row."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(rows(key, row))
