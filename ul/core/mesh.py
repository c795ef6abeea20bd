"""Devices: the mesh, where a batch lies, where a parameter lies.

Sharding lives here and not in the networks. Axes: `data` and `fsdp`. A batch is
split over both; a parameter over `fsdp` alone, by its shape.
"""

import functools
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
    """A table: what of each part is split and how, and the bytes that a device holds."""
    rows: dict[tuple[str, str], list[int]] = {}
    for path, leaf in trees.paths(tree).items():
        spec = leaf_sharding(mesh, leaf).spec
        axis = next((i for i, name in enumerate(spec) if name), None)
        shape = "replicated" if axis is None else f"fsdp, axis {axis} of {len(spec)}"
        parts = 1 if axis is None else mesh.shape["fsdp"]
        nbytes = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        row = rows.setdefault((_part(path), shape), [0, 0, 0])
        for i, n in enumerate((1, nbytes, nbytes // parts)):
            row[i] += n
    lines = [f"mesh {dict(mesh.shape)}, MiB of the state:"]
    lines += [f"{'part':<16} {'sharding':<22} {'leaves':>6} {'all':>9} {'a device':>9}"]
    total = [sum(row[i] for row in rows.values()) for i in range(3)]
    for (part, shape), row in [*sorted(rows.items()), (("all", ""), total)]:
        numbers = f"{row[0]:>6} {row[1] / 2**20:>9.1f} {row[2] / 2**20:>9.1f}"
        lines += [f"{part:<16} {shape:<22} {numbers}"]
    return "\n".join(lines)


def _part(path: str) -> str:
    """params, a network of it, an EMA, the moments: what a reader thinks in."""
    first, _, rest = path.partition("/")
    return first if first in ("opt", "step") else f"{first}/{rest.split('/')[0]}"


def local_rows(mesh: Mesh, total: int) -> np.ndarray:
    """Which rows of a global batch this process's devices hold, ascending."""
    held = batch_sharding(mesh).addressable_devices_indices_map((total,))
    return np.unique([np.arange(total)[index] for index in held.values()])


def to_global(mesh: Mesh, batch: dict, total: int | None = None) -> dict:
    """A host batch as arrays of the global batch of `total` rows.

    The batch has either all rows or this process's `local_rows`.
    """
    sharding = batch_sharding(mesh)

    def place(value):
        value = np.asarray(value)
        n = total or len(value)
        rows = np.arange(n) if len(value) == n else local_rows(mesh, n)

        def shard(index):
            first, last, _ = index[0].indices(n)
            at = np.searchsorted(rows, first)
            return value[at : at + last - first]

        return jax.make_array_from_callback((n, *value.shape[1:]), sharding, shard)

    return {k: place(v) for k, v in batch.items()}


def to_host(mesh: Mesh, tree):
    """Arrays that lie over the mesh, whole, on every process's host."""
    if jax.process_count() > 1:
        tree = _whole(replicated(mesh))(tree)
    return jax.device_get(tree)


@functools.cache
def _whole(sharding: NamedSharding):
    return jax.jit(lambda tree: tree, out_shardings=sharding)


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
