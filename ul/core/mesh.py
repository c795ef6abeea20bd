"""Devices: the mesh, where a batch lies, where a parameter lies.

Sharding lives here and not in the networks. Axes: `data` and `fsdp`. A batch is
split over both; a parameter over `fsdp` alone, by its shape.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ul.core import trees
from ul.core.errors import ConfigError

AXES = ("data", "fsdp")
# Smaller leaves cost more to gather than they save.
MIN_SHARDED_SIZE = 2**14
# Rows and columns of bfloat16 numbers.
TILE = (16, 128)


def make(data: int = -1, fsdp: int = 1, devices: Any = None) -> Mesh:
    """Mesh of all devices; -1 on one axis takes what the other leaves.

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if data == -1 and fsdp > 0:
        data = n // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = n // data
    if data * fsdp != n or data < 1 or fsdp < 1:
        raise ConfigError(
            f"mesh data={data} x fsdp={fsdp} does not cover {n} devices; "
            "set one of mesh.data, mesh.fsdp to -1"
        )
    grid = mesh_utils.create_device_mesh(
        (data, fsdp), devices, allow_split_physical_axes=True
    )
    # Auto: jax.make_mesh would give Explicit axes, which Linen cannot trace.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over all devices."""
    return NamedSharding(mesh, P(AXES))


def leaf_sharding(mesh: Mesh | AbstractMesh, leaf) -> NamedSharding:
    """One dimension that `fsdp` divides, of leaves above a size.

    The largest of those whose parts fill whole tiles of a TPU's memory, 16 rows of 128
    columns: others are gathered by an all-reduce of zeros, at twice the bytes. The
    largest at all where there is none.
    """
    fsdp, rank = mesh.shape["fsdp"], len(leaf.shape)
    tiles = (1,) * (rank - 2) + TILE[-rank:] if rank else ()
    spec: list[str | None] = [None] * rank
    able = [i for i, n in enumerate(leaf.shape) if n % fsdp == 0]
    if fsdp > 1 and able and np.prod(leaf.shape) >= MIN_SHARDED_SIZE:
        whole = [i for i in able if leaf.shape[i] // fsdp % tiles[i] == 0]
        spec[max(whole or able, key=lambda i: leaf.shape[i])] = "fsdp"
    return NamedSharding(mesh, P(*spec))


def shardings(mesh: Mesh | AbstractMesh, tree):
    """Sharding of every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf), tree)


def describe(mesh: Mesh, tree) -> str:
    """One line: how many leaves and bytes are split, and what a device holds."""
    split = whole = per_device = 0
    leaves = trees.paths(tree)
    for leaf in leaves.values():
        nbytes = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        sharded = "fsdp" in (leaf_sharding(mesh, leaf).spec or ())
        split, whole = split + nbytes * sharded, whole + nbytes * (not sharded)
        per_device += nbytes // mesh.shape["fsdp"] if sharded else nbytes
    return (
        f"mesh {dict(mesh.shape)}: {len(leaves)} leaves, {split / 2**20:.1f} MiB "
        f"sharded over fsdp, {whole / 2**20:.1f} MiB replicated, "
        f"{per_device / 2**20:.1f} MiB a device"
    )


def to_global(mesh: Mesh, batch: dict) -> dict:
    """This process's rows of a host batch to arrays of the global batch."""
    sharding = batch_sharding(mesh)
    return {
        k: jax.make_array_from_process_local_data(sharding, np.asarray(v))
        for k, v in batch.items()
    }


def constrain_leaves(tree):
    """Pin parameters, or gradients of them, to their shardings; nothing without fsdp.

    A gradient is a sum over all devices of which each keeps its part alone: said here,
    that is a reduce-scatter instead of an all-reduce.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(mesh, tree))


def gathered(kernel):
    """A split parameter whole, where it is used; its gradient goes back in parts.

    Said in the network, for inside a scan a layer is gathered at a time.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return kernel
    return _gathered(kernel)


@jax.custom_vjp
def _gathered(kernel):
    return jax.lax.with_sharding_constraint(kernel, P())


_gathered.defvjp(
    lambda kernel: (_gathered(kernel), None),
    lambda _, gradient: (constrain_leaves(gradient),),
)


def constrain(x):
    """Pin an activation's rows to the batch axes; nothing without a mesh.

    Once a block: without it the compiler replicates the activations of a scan.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, P(AXES))
