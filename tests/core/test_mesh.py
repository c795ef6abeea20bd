"""The device mesh, shardings and the exchange of arrays between host and devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.lib.breaks import Break
from ul.core import mesh as meshes
from ul.core.errors import ConfigError


@pytest.mark.parametrize("axes", [(-1, 1), (-1, 4), (2, -1), (8, 1)])
def test_minus_one_uses_the_remaining_devices(axes):
    mesh = meshes.make(*axes)
    assert mesh.size == 8
    assert mesh.axis_names == ("data", "fsdp")


@pytest.mark.parametrize("axes", [(3, 1), (-1, -1), (-1, 3), (0, 8)])
def test_axes_that_do_not_cover_the_devices_are_rejected(axes):
    message = rf"number of devices, 8; got \(data, fsdp\) = {re.escape(str(axes))}"
    with pytest.raises(ConfigError, match=message):
        meshes.make(*axes)


@pytest.mark.parametrize(
    ("dims", "spec"),
    [
        ((128, 512), P(None, "fsdp")),  # the largest
        # 64 columns would not fill a tile, so the rows are split.
        ((128, 256), P("fsdp", None)),
        ((8, 128, 256), P(None, "fsdp", None)),
        ((3, 3, 64, 64), P(None, None, "fsdp", None)),
        ((256, 255), P("fsdp", None)),
        ((100, 200), P(None, "fsdp")),  # no dimension fills tiles: the largest
        ((16, 16), P(None, None)),  # small
        ((255, 255), P(None, None)),  # not divisible
        ((), P()),
    ],
)
def test_a_parameter_is_sharded_over_its_largest_dimension_that_fills_tiles(dims, spec):
    leaf = jax.ShapeDtypeStruct(dims, jnp.float32)
    assert meshes.leaf_sharding(meshes.make(2, 4), leaf).spec == spec


def test_a_gathered_parameter_is_replicated_and_its_gradient_sharded():
    inspected = []

    def f(w):
        gathered = meshes.gather_parameter(w)
        jax.debug.inspect_array_sharding(gathered, callback=inspected.append)
        return jnp.sum(gathered * gathered)

    w = jnp.arange(128.0 * 512).reshape(128, 512)
    assert meshes.gather_parameter(w) is w  # without a mesh
    mesh = meshes.make(1, 8)
    sharded = jax.device_put(w, meshes.leaf_sharding(mesh, w))
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(f))(sharded)
    assert gradient.sharding.spec == sharded.sharding.spec != P()
    np.testing.assert_array_equal(gradient, 2 * w)
    assert [s.is_fully_replicated for s in inspected] == [True]


def test_a_batch_is_sharded_over_all_devices():
    mesh = meshes.make(2, 4)
    batch = meshes.to_global(mesh, {"x": np.arange(16)})
    assert len(batch["x"].addressable_shards) == 8
    assert batch["x"].addressable_shards[0].data.shape == (2,)
    np.testing.assert_array_equal(batch["x"], np.arange(16))


def test_constrain_activations_pins_rows_and_does_nothing_without_a_mesh():
    x = jnp.zeros((8, 3))
    assert meshes.constrain_activations(x) is x
    with jax.set_mesh(meshes.make()):
        y = jax.jit(lambda x: meshes.constrain_activations(x + 1))(x)
    assert y.sharding.spec[0] in (("data", "fsdp"), "data")


def test_the_table_lists_the_sharding_and_the_size_of_each_part():
    mesh = meshes.make(2, 4)
    tree = {
        "params": {"encoder": {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}},
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    rows = meshes.sharding_table(mesh, tree).splitlines()
    assert "'fsdp': 4" in rows[0]
    assert rows[2].split() == [
        *("params/encoder", "fsdp,", "axis", "0", "of", "2", "1", "4.0", "1.0")
    ]
    assert rows[3].split()[:3] == ["step", "replicated", "1"]
    assert rows[-1].split() == ["all", "2", "4.0", "1.0"]


def test_all_rows_are_local_to_a_single_process():
    """They are ascending, whatever the order of the devices in the mesh."""
    devices = list(reversed(jax.devices()))
    mesh = meshes.make(2, 4, devices)
    np.testing.assert_array_equal(meshes.local_rows(mesh, 16), np.arange(16))
    x = meshes.to_global(mesh, {"x": np.arange(16)}, 16)["x"]
    np.testing.assert_array_equal(meshes.to_host(mesh, x), np.arange(16))


BREAKS = (
    Break(
        "every device gets the first rows",
        "ul/core/mesh.py",
        "offset = np.searchsorted(rows, first)",
        "offset = 0",
        "test_a_batch_is_sharded_over_all_devices",
    ),
)
