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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_the_digest_depends_on_every_single_bit(dtype):
    leaf = jnp.arange(12).reshape(3, 4).astype(dtype)
    before = int(trees.digest(leaf))
    raw = np.asarray(leaf).view(np.uint8)
    for byte in range(raw.size):
        flipped = raw.copy().reshape(-1)
        flipped[byte] ^= 1 << (byte % 8)
        changed = jnp.asarray(flipped.view(np.asarray(leaf).dtype).reshape(3, 4))
        assert int(trees.digest(changed)) != before


def test_the_digest_depends_on_the_order():
    a = jnp.arange(6.0).reshape(2, 3)
    assert int(trees.digest(a)) != int(trees.digest(a[::-1]))


def test_the_digest_is_the_same_on_every_mesh():
    leaf = jnp.linspace(0, 1, 64).reshape(8, 8)
    sharded = jax.device_put(leaf, NamedSharding(mesh.make(), P("data")))
    assert int(jax.jit(trees.digest)(sharded)) == int(trees.digest(leaf))


def test_scale_gradient_keeps_the_value_and_scales_the_gradient():
    value, grad = jax.value_and_grad(lambda x: trees.scale_gradient(x, 0.25) ** 2)(3.0)
    assert value == 9.0
    assert grad == 0.25 * 6.0


def test_all_finite_ignores_integers_and_finds_a_nan():
    assert trees.all_finite({"a": jnp.ones(3), "n": jnp.arange(2)})
    assert not trees.all_finite({"a": jnp.asarray([1.0, jnp.nan])})


BREAKS = (
    Break(
        "a digest that ignores the order of the elements",
        "ul/core/trees.py",
        "words * (2 * position + 1)",
        "words",
        "test_the_digest_depends_on_the_order",
    ),
)
