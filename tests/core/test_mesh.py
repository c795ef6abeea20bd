import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ul.core import mesh
from ul.core.errors import ConfigError


@pytest.mark.parametrize("axes", [(-1, 1), (-1, 4), (2, -1), (8, 1)])
def test_minus_one_takes_the_rest(axes):
    made = mesh.make(*axes)
    assert made.size == 8
    assert made.axis_names == ("data", "fsdp")


@pytest.mark.parametrize("axes", [(3, 1), (-1, -1), (-1, 3), (0, 8)])
def test_axes_that_do_not_cover_the_devices_are_refused(axes):
    with pytest.raises(ConfigError, match="8 devices"):
        mesh.make(*axes)


@pytest.mark.parametrize(
    ("dims", "spec"),
    [
        ((128, 512), P(None, "fsdp")),  # the largest
        (
            (128, 256),
            P("fsdp", None),
        ),  # the largest in whole tiles: 64 columns are none
        ((8, 128, 256), P(None, "fsdp", None)),
        ((3, 3, 64, 64), P(None, None, "fsdp", None)),
        ((256, 255), P("fsdp", None)),
        ((100, 200), P(None, "fsdp")),  # no whole tiles: the largest at all
        ((16, 16), P(None, None)),  # small
        ((255, 255), P(None, None)),  # not divisible
        ((), P()),
    ],
)
def test_parameters_are_split_by_their_largest_dimension_in_whole_tiles(dims, spec):
    leaf = jax.ShapeDtypeStruct(dims, jnp.float32)
    assert mesh.leaf_sharding(mesh.make(2, 4), leaf).spec == spec


def test_a_gathered_parameter_is_whole_and_its_gradient_split():
    def f(w):
        whole = mesh.gathered(w)
        jax.debug.inspect_array_sharding(whole, callback=seen.append)
        return jnp.sum(whole * whole)

    w = jnp.arange(128.0 * 512).reshape(128, 512)
    assert mesh.gathered(w) is w  # without a mesh
    seen = []
    made = mesh.make(1, 8)
    split = jax.device_put(w, mesh.leaf_sharding(made, w))
    with jax.set_mesh(made):
        gradient = jax.jit(jax.grad(f))(split)
    assert gradient.sharding.spec == split.sharding.spec != P()
    np.testing.assert_array_equal(gradient, 2 * w)
    assert [s.is_fully_replicated for s in seen] == [True]


def test_a_batch_lies_over_all_devices():
    made = mesh.make(2, 4)
    batch = mesh.to_global(made, {"x": np.arange(16)})
    assert len(batch["x"].addressable_shards) == 8
    assert batch["x"].addressable_shards[0].data.shape == (2,)
    np.testing.assert_array_equal(batch["x"], np.arange(16))


def test_constrain_pins_rows_under_a_mesh_and_is_nothing_without():
    x = jnp.zeros((8, 3))
    assert mesh.constrain(x) is x
    with jax.set_mesh(mesh.make()):
        y = jax.jit(lambda x: mesh.constrain(x + 1))(x)
    assert y.sharding.spec[0] in (("data", "fsdp"), "data")


def test_the_table_says_how_each_part_is_split_and_what_a_device_holds():
    made = mesh.make(2, 4)
    tree = {
        "params": {"encoder": {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}},
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    rows = mesh.describe(made, tree).splitlines()
    assert "'fsdp': 4" in rows[0]
    assert rows[2].split() == [
        *("params/encoder", "fsdp,", "axis", "0", "of", "2", "1", "4.0", "1.0")
    ]
    assert rows[3].split()[:3] == ["step", "replicated", "1"]
    assert rows[-1].split() == ["all", "2", "4.0", "1.0"]


def test_a_process_without_all_rows_gives_its_own():
    """With one process all rows are local, whichever order the mesh has its devices in."""
    devices = list(reversed(jax.devices()))
    made = mesh.make(2, 4, devices)
    np.testing.assert_array_equal(mesh.local_rows(made, 16), np.arange(16))
    x = mesh.to_global(made, {"x": np.arange(16)}, 16)["x"]
    np.testing.assert_array_equal(mesh.to_host(made, x), np.arange(16))
