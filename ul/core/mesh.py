"""The device mesh, and the sharding of batches and parameters over it.

Shardings are decided here and not in the networks. The mesh has the axes `data` and
`fsdp`. A batch is sharded over both; a parameter over `fsdp` alone, by its shape.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ul.core import trees
from ul.core.errors import ConfigError

AXES = ("data", "fsdp")
# Gathering a smaller leaf costs more than sharding it saves.
MIN_SHARDED_SIZE = 2**14
# The rows and columns of a TPU's memory tile in bfloat16.
TILE = (16, 128)


def axis_sizes(
    data: int, fsdp: int, num_devices: int, slices: int = 1
) -> tuple[int, int]:
    """Return the sizes of the axes on `num_devices` devices; -1 on one axis fills it up.

    Raises:
      ConfigError: the axis sizes do not multiply to the number of devices, or `data` is not
        a multiple of the number of slices.
    """
    requested = f"({data}, {fsdp})"
    if data == -1 and fsdp > 0:
        data = num_devices // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = num_devices // data
    if data * fsdp != num_devices or data < 1 or fsdp < 1:
        raise ConfigError(
            f"mesh.data x mesh.fsdp must equal the number of devices, {num_devices}; got "
            f"(data, fsdp) = {requested}. Set one of the two to -1."
        )
    if data % slices:
        raise ConfigError(
            f"mesh.data must be a multiple of the number of slices, {slices}, so that fsdp "
            f"stays within a slice; got (data, fsdp) = ({data}, {fsdp}) on {num_devices} "
            "devices. Lower mesh.fsdp."
        )
    return data, fsdp


def make(data: int = -1, fsdp: int = 1, devices: Any = None) -> Mesh:
    """Create a mesh of `devices`, by default of all; -1 on one axis fills it up.

    On several TPU slices `fsdp` stays within a slice, where links are fast, and `data`
    spans them.

    Raises:
      ConfigError: the axis sizes do not multiply to the number of devices, or `data` is not
        a multiple of the number of slices.
    """
    devices = jax.devices() if devices is None else devices
    slices = count_slices(devices)
    data, fsdp = axis_sizes(data, fsdp, len(devices), slices)
    if slices == 1:
        grid = mesh_utils.create_device_mesh(
            (data, fsdp), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            (data // slices, fsdp), (slices, 1), devices, allow_split_physical_axes=True
        )
    # jax.make_mesh would create Explicit axes, which Flax Linen cannot trace.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def count_slices(devices: Sequence) -> int:
    """Return the number of TPU slices that the devices are in; 1 for other devices.

    The `slice_index` of a GPU is that of its node, which `fsdp` may cross.
    """
    on_tpu = [device for device in devices if device.platform == "tpu"]
    return max(len({getattr(device, "slice_index", 0) for device in on_tpu}), 1)


def platform(mesh: Mesh | None = None) -> str:
    """Return the kind of a mesh's devices, which may be absent: cpu, gpu or tpu.

    By default it is that of the current mesh, or without one that of the default backend.
    """
    if mesh is not None:
        name = mesh.devices.flat[0].platform
    else:
        device = jax.sharding.get_abstract_mesh().abstract_device
        name = device.platform if device else jax.default_backend()
    return "gpu" if name in ("cuda", "rocm") else name


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that holds the whole array on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the rows over all devices."""
    return NamedSharding(mesh, P(AXES))


def leaf_sharding(mesh: Mesh | AbstractMesh, leaf) -> NamedSharding:
    """Return the sharding of a parameter: one dimension over `fsdp` if it is large.

    The dimension is the largest one whose shards fill whole tiles of a TPU's memory, 16
    rows of 128 columns. The compiler gathers other shards by an all-reduce of zeros, at
    twice the bytes. If no dimension fills whole tiles, it is the largest that `fsdp`
    divides.
    """
    fsdp, rank = mesh.shape["fsdp"], len(leaf.shape)
    tiles = (1,) * (rank - 2) + TILE[-rank:] if rank else ()
    spec: list[str | None] = [None] * rank
    divisible = [i for i, n in enumerate(leaf.shape) if n % fsdp == 0]
    if fsdp > 1 and divisible and np.prod(leaf.shape) >= MIN_SHARDED_SIZE:
        tiled = [i for i in divisible if leaf.shape[i] // fsdp % tiles[i] == 0]
        spec[max(tiled or divisible, key=lambda i: leaf.shape[i])] = "fsdp"
    return NamedSharding(mesh, P(*spec))


def tree_shardings(mesh: Mesh | AbstractMesh, tree):
    """Return the `leaf_sharding` of every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf), tree)


def sharding_table(mesh: Mesh, tree) -> str:
    """Format how the parts of a training state are sharded, and the MiB per device."""
    rows: dict[tuple[str, str], list[int]] = {}
    for path, leaf in trees.leaves_by_path(tree).items():
        spec = leaf_sharding(mesh, leaf).spec
        axis = next((i for i, name in enumerate(spec) if name), None)
        sharding = "replicated" if axis is None else f"fsdp, axis {axis} of {len(spec)}"
        num_shards = 1 if axis is None else mesh.shape["fsdp"]
        num_bytes = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        row = rows.setdefault((_state_part(path), sharding), [0, 0, 0])
        for i, n in enumerate((1, num_bytes, num_bytes // num_shards)):
            row[i] += n
    lines = [f"mesh {dict(mesh.shape)}, MiB of the state:"]
    lines += [f"{'part':<16} {'sharding':<22} {'leaves':>6} {'all':>9} {'a device':>9}"]
    total = [sum(row[i] for row in rows.values()) for i in range(3)]
    for (part, sharding), row in [*sorted(rows.items()), (("all", ""), total)]:
        numbers = f"{row[0]:>6} {row[1] / 2**20:>9.1f} {row[2] / 2**20:>9.1f}"
        lines += [f"{part:<16} {sharding:<22} {numbers}"]
    return "\n".join(lines)


def _state_part(path: str) -> str:
    """Return the part of the state at `path`: opt, step, or one network's parameters."""
    first, _, rest = path.partition("/")
    return first if first in ("opt", "step") else f"{first}/{rest.split('/')[0]}"


def local_rows(mesh: Mesh, total: int) -> np.ndarray:
    """Return the rows of a global batch that this process's devices hold, ascending."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((total,))
    return np.unique([np.arange(total)[index] for index in slices.values()])


def to_global(mesh: Mesh, batch: dict, total: int | None = None) -> dict:
    """Convert a host batch to global arrays of `total` rows, sharded over the mesh.

    The host batch holds either all rows or this process's `local_rows`.
    """
    sharding = batch_sharding(mesh)

    def global_array(value):
        value = np.asarray(value)
        num_rows = total or len(value)
        is_complete = len(value) == num_rows
        rows = np.arange(num_rows) if is_complete else local_rows(mesh, num_rows)

        def shard(index):
            first, last, _ = index[0].indices(num_rows)
            offset = np.searchsorted(rows, first)
            return value[offset : offset + last - first]

        return jax.make_array_from_callback(
            (num_rows, *value.shape[1:]), sharding, shard
        )

    return {k: global_array(v) for k, v in batch.items()}


def to_host(mesh: Mesh, tree):
    """Copy arrays that are sharded over the mesh to every process's host, in full."""
    if jax.process_count() > 1:
        tree = _reshard(replicated(mesh))(tree)
    return jax.device_get(tree)


@functools.cache
def _reshard(sharding: NamedSharding):
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def constrain_parameters(tree):
    """Pin parameters, or their gradients, to their shardings; a no-op without fsdp.

    A gradient is a sum over all devices, of which each device keeps only its shard. The
    constraint lets the compiler use a reduce-scatter instead of an all-reduce.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return tree
    shardings = tree_shardings(mesh, tree)
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)


def gather_parameter(kernel):
    """All-gather a sharded parameter where it is used; its gradient is sharded again.

    The networks call this themselves, so that a scan over layers gathers one layer at a
    time.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return kernel
    return _gather(kernel)


@jax.custom_vjp
def _gather(kernel):
    return jax.lax.with_sharding_constraint(kernel, P())


_gather.defvjp(
    lambda kernel: (_gather(kernel), None),
    lambda _, gradient: (constrain_parameters(gradient),),
)


def constrain_activations(x):
    """Pin the rows of an activation to the batch axes; a no-op without a mesh.

    Every block calls this once: without it the compiler replicates the activations of a
    scan.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, P(AXES))
