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


def test_parameters_are_split_over_fsdp_by_their_largest_divisible_dimension():
    made = mesh.make(2, 4)
    shape = jax.ShapeDtypeStruct
    assert mesh.leaf_sharding(made, shape((128, 256), jnp.float32)).spec == P(
        None, "fsdp"
    )
    assert mesh.leaf_sharding(made, shape((256, 255), jnp.float32)).spec == P(
        "fsdp", None
    )
    assert mesh.leaf_sharding(made, shape((16, 16), jnp.float32)).spec == P(None, None)
    assert mesh.leaf_sharding(made, shape((255, 255), jnp.float32)).spec == P(
        None, None
    )


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
