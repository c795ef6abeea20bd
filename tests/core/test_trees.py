"""Functions of parameter trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.lib.breaks import Break
from ul.core import mesh, trees


def test_leaves_by_path_names_every_leaf():
    assert trees.leaves_by_path({"a": {"b": 1}, "c": [2, 3]}) == {
        "a/b": 1,
        "c/0": 2,
        "c/1": 3,
    }


compiled_digest = jax.jit(trees.digest)


def digest(leaf) -> tuple[int, ...]:
    return tuple(np.asarray(compiled_digest(jnp.asarray(leaf))).tolist())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.int8])
def test_the_digest_depends_on_every_single_bit(dtype):
    """In both words: each of them is a sum of invertible functions."""
    leaf = np.asarray(jnp.arange(12).reshape(3, 4).astype(dtype))
    before = digest(leaf)
    for bit in range(8 * leaf.nbytes):
        flipped = leaf.copy().reshape(-1).view(np.uint8)
        flipped[bit // 8] ^= 1 << (bit % 8)
        after = digest(flipped.view(leaf.dtype).reshape(3, 4))
        assert after[0] != before[0] and after[1] != before[1]


def test_the_digest_notices_systematic_changes():
    """Changes of many elements whose effects cancel out in a plain weighted sum."""
    leaf = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    bits = leaf.view(np.uint32)
    changed = {
        "negated": -leaf,
        "two rows swapped": leaf[[1, 0, *range(2, 64)]],
        "reversed": leaf[::-1],
        "transposed": np.ascontiguousarray(leaf.T).reshape(64, 32),
        "shifted": np.roll(leaf, 1),
        **{f"bit {i} stuck at 0": bits & ~np.uint32(1 << i) for i in range(32)},
        **{f"bit {i} stuck at 1": bits | np.uint32(1 << i) for i in range(32)},
        **{f"bit {i} flipped": bits ^ np.uint32(1 << i) for i in range(31)},
        "half of the signs": np.where(np.arange(32) % 2, leaf, -leaf),
    }
    digests = {name: digest(value) for name, value in changed.items()}
    assert digest(leaf) not in digests.values()
    assert len(set(digests.values())) == len(digests)


def test_no_pair_of_flipped_bits_goes_unnoticed():
    """A thousand pairs; a sum of 32 bits would miss some of those in the highest bit."""
    leaf = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    rng = np.random.default_rng(1)

    @jax.jit
    def digest_of_flipped(bits, positions, masks):
        return trees.digest(bits.at[positions].set(bits[positions] ^ masks))

    bits, before = jnp.asarray(leaf.view(np.uint32)), digest(leaf.view(np.uint32))
    for i in range(1000):
        positions = rng.choice(4096, 2, replace=False)
        # Every second pair flips the same bit, every fourth pair the sign.
        bit = rng.integers(32, size=2) if i % 2 else np.full(2, [31, 22, 7][i % 3])
        masks = (np.uint32(1) << bit.astype(np.uint32)).astype(np.uint32)
        after = tuple(np.asarray(digest_of_flipped(bits, positions, masks)).tolist())
        assert after[0] != before[0] or after[1] != before[1]


def test_the_digest_is_the_same_on_every_mesh():
    leaf = jnp.linspace(0, 1, 64).reshape(8, 8)
    for axes in (P("data"), P(None, "data")):
        sharded = jax.device_put(leaf, NamedSharding(mesh.make(), axes))
        np.testing.assert_array_equal(jax.jit(trees.digest)(sharded), digest(leaf))


def test_scale_gradient_keeps_the_value_and_scales_the_gradient():
    value, grad = jax.value_and_grad(lambda x: trees.scale_gradient(x, 0.25) ** 2)(3.0)
    assert value == 9.0
    assert grad == 0.25 * 6.0


def test_nonfinite_elements_are_counted_and_integers_have_none():
    values = jnp.asarray([1.0, jnp.nan, -jnp.inf, 2.0])
    for leaf, expected in ((values, 2), (values[:1], 0), (jnp.arange(2), 0)):
        digest_of_leaf, count = trees.digest_and_count_nonfinite(leaf)
        assert int(count) == expected
        np.testing.assert_array_equal(digest_of_leaf, trees.digest(leaf))


def test_a_digest_needs_no_memory_of_the_size_of_the_leaf():
    leaf = jax.ShapeDtypeStruct((512, 1024), jnp.float32)
    compiled = jax.jit(trees.digest_and_count_nonfinite).lower(leaf).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * 4 * leaf.size


BREAKS = (
    Break(
        "a digest that ignores the order of the elements",
        "ul/core/trees.py",
        "_mix(words ^ (position * step))",
        "_mix(words)",
        "test_the_digest_notices_systematic_changes",
    ),
)
