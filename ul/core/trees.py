"""Functions of parameter trees: path names, counts, digests, scaled gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def leaves_by_path(tree: Tree) -> dict[str, Any]:
    """Return the leaves by path name, `a/b/c`, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_path_name(path): leaf for path, leaf in flat}


def map_with_path(fn: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Apply `fn(path_name, leaf)` to every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: fn(_path_name(path), leaf), tree
    )


def _path_name(path) -> str:
    return "/".join(_key_name(key) for key in path)


def _key_name(key) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"A tree key must have a key, a name or an index; got {key!r}.")


def num_elements(tree: Tree) -> int:
    """Return the number of elements of all leaves together."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def digest(leaf: jax.Array) -> jax.Array:
    """Return a hash of the elements and their positions, uint32 [2].

    Each of the two words is a sum, modulo 2^32, of a mixed value of every element. For a
    given position the mixing is invertible, so a change of one element cannot vanish; other
    changes vanish with a probability of about 2^-64. A sum of integers is the same on every
    mesh.

    Raises:
      TypeError: the elements are wider than 32 bits.
    """
    return digest_and_count_nonfinite(leaf)[0]


def digest_and_count_nonfinite(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the `digest` of a leaf, and its number of elements that are not finite.

    One reduction computes all of it, which XLA fuses with the mixing; separate ones would
    store arrays of the size of the leaf.
    """
    if leaf.dtype == jnp.bool_ or leaf.dtype.itemsize == 1:
        words = leaf.astype(jnp.uint32)
    elif leaf.dtype.itemsize == 2:
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint16).astype(jnp.uint32)
    elif leaf.dtype.itemsize == 4:
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    else:
        raise TypeError(
            f"A digest needs elements of at most 32 bits; got {leaf.dtype}."
        )
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, length in enumerate(words.shape):
        position = position * jnp.uint32(length)
        position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    summands = [_mix(words ^ (position * step)) for step in _POSITION_STEPS]
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        summands.append((~jnp.isfinite(leaf)).astype(jnp.uint32))
    sums = jax.lax.reduce(
        summands,
        [np.uint32(0)] * len(summands),
        lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
        tuple(range(words.ndim)),
    )
    return jnp.stack(sums[:2]), sums[2] if len(sums) > 2 else jnp.uint32(0)


# Odd, so that all positions are told apart: 2^32 divided by the golden ratio, and the third
# prime of xxHash.
_POSITION_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xC2B2AE3D))


def _mix(word: jax.Array) -> jax.Array:
    """Mix the bits of each uint32: the last step of MurmurHash3, which is invertible."""
    word = (word ^ (word >> 16)) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def scale_gradient(x: jax.Array, scale) -> jax.Array:
    """Return `x` unchanged, and multiply its gradient by `scale`."""

    @jax.custom_vjp
    def identity(x, scale):
        return x

    identity.defvjp(
        lambda x, scale: (x, scale),
        lambda scale, g: (g * scale.astype(g.dtype), jnp.zeros_like(scale)),
    )
    return identity(x, jnp.asarray(scale, jnp.float32))
