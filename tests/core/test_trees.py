import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ul.core import mesh, trees


def test_paths_name_every_leaf():
    assert trees.paths({"a": {"b": 1}, "c": [2, 3]}) == {"a/b": 1, "c/0": 2, "c/1": 3}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_digest_sees_every_single_bit(dtype):
    leaf = jnp.arange(12).reshape(3, 4).astype(dtype)
    before = int(trees.digest(leaf))
    raw = np.asarray(leaf).view(np.uint8)
    for byte in range(raw.size):
        flipped = raw.copy().reshape(-1)
        flipped[byte] ^= 1 << (byte % 8)
        changed = jnp.asarray(flipped.view(np.asarray(leaf).dtype).reshape(3, 4))
        assert int(trees.digest(changed)) != before


def test_digest_sees_order():
    a = jnp.arange(6.0).reshape(2, 3)
    assert int(trees.digest(a)) != int(trees.digest(a[::-1]))


def test_digest_is_the_same_on_every_mesh():
    leaf = jnp.linspace(0, 1, 64).reshape(8, 8)
    split = jax.device_put(leaf, NamedSharding(mesh.make(), P("data")))
    assert int(jax.jit(trees.digest)(split)) == int(trees.digest(leaf))


def test_scale_gradient_keeps_the_value_and_scales_the_gradient():
    value, grad = jax.value_and_grad(lambda x: trees.scale_gradient(x, 0.25) ** 2)(3.0)
    assert value == 9.0
    assert grad == 0.25 * 6.0


def test_finite():
    assert trees.finite({"a": jnp.ones(3), "n": jnp.arange(2)})
    assert not trees.finite({"a": jnp.asarray([1.0, jnp.nan])})
