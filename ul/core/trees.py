"""Parameter trees: path names, masks, norms, counts, digests."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def paths(tree: Tree) -> dict[str, Any]:
    """Leaves by path name, `a/b/c`, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(_name(k) for k in path): leaf for path, leaf in flat}


def map_with_path(fn: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """`fn(path name, leaf)` over every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: fn("/".join(_name(k) for k in path), leaf), tree
    )


def _name(key) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"tree key {key!r} has no name")


def size(tree: Tree) -> int:
    """Number of elements of all leaves together."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def finite(tree: Tree) -> jax.Array:
    """True when every element of every floating leaf is finite."""
    leaves = [
        jnp.all(jnp.isfinite(leaf))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.array(True)


def digest(leaf: jax.Array) -> jax.Array:
    """A uint32 that changes when any one bit of `leaf` does.

    The words of the array times odd numbers that grow with the position, summed
    modulo 2^32: an odd factor is invertible, so no single flip can vanish, and the
    sum of integers is the same on every mesh.
    """
    if leaf.dtype == jnp.bool_ or leaf.dtype.itemsize == 1:
        words = leaf.astype(jnp.uint32)
    elif leaf.dtype.itemsize == 2:
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint16).astype(jnp.uint32)
    elif leaf.dtype.itemsize == 4:
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    else:
        raise TypeError(f"no digest for {leaf.dtype}")
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, length in enumerate(words.shape):
        place = place * jnp.uint32(length)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)


def scale_gradient(x: jax.Array, scale) -> jax.Array:
    """`x`, whose gradient is multiplied by `scale` on the way back."""

    @jax.custom_vjp
    def identity(x, scale):
        return x

    identity.defvjp(
        lambda x, scale: (x, scale),
        lambda scale, g: (g * scale.astype(g.dtype), jnp.zeros_like(scale)),
    )
    return identity(x, jnp.asarray(scale, jnp.float32))
