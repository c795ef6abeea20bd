"""The data that a compiled step sends between devices, and the minimum it must send."""

import dataclasses
import math
import re
from collections.abc import Iterable

import jax
import numpy as np

from ul.core import mesh as meshes
from ul.core import trees
from ul.planning.pods.hlo import HloInstruction, HloProgram, HloShape

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation, which runs `count` times per step.

    shapes: the whole arrays, after gathering or before reducing.
    group_size: number of devices that take part together.
    source: the name of the JAX operation that it comes from.
    gathered_shapes: those of `shapes` that are put together from parts, also by an
      all-reduce to which every device contributes its part and zeros.
    crosses_slices: whether it goes through the data-center network.
    """

    kind: str
    shapes: tuple[HloShape, ...]
    group_size: int
    count: int
    source: str
    gathered_shapes: tuple[HloShape, ...] = ()
    crosses_slices: bool = False

    @property
    def sent_bytes(self) -> int:
        """Bytes that a device sends per step, if the operation runs as a ring."""
        nbytes = sum(s.nbytes for s in self.shapes)
        if self.kind == "collective-permute":
            return nbytes * self.count
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * nbytes * (self.group_size - 1) // self.group_size * self.count


def find_collectives(
    program: HloProgram, slices: int = 1, devices_per_slice: int = 0
) -> list[Collective]:
    """Return every collective of the program once.

    slices: number of TPU slices or GPU nodes; devices_per_slice: by default all devices.

    TPU compilers spread one collective over several fusions that run beside it; a chain id
    identifies it. They also write a reduce-scatter as a fusion named all-reduce-scatter.
    The channel id does not identify a collective: combined ones share it. What TPU slices
    reduce among each other are sends to the host, which passes the data on.
    """
    devices_per_slice = devices_per_slice or program.num_partitions
    counts = program.execution_counts()
    collectives: dict[tuple[str, str], Collective] = {}
    for name, instructions in program.computations.items():
        for instruction in instructions:
            kind = instruction.opcode.removesuffix("-start")
            if sent := _sent_to_slices(instruction, counts[name], slices):
                collectives[name, instruction.name] = sent
            if kind not in KINDS or not counts[name]:
                continue
            chain = re.search(r'chain_id="(\d+)"', instruction.arguments)
            key = (kind, chain[1]) if chain else (name, instruction.name)
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            collective = _collective(program, name, instruction, kind, counts[name])
            if _spans_slices(instruction.arguments, program, devices_per_slice):
                collective = dataclasses.replace(collective, crosses_slices=True)
            if key not in collectives or collectives[key].count < collective.count:
                collectives[key] = collective
    return [c for c in collectives.values() if c.group_size > 1]


def _sent_to_slices(
    instruction: HloInstruction, count: int, slices: int
) -> Collective | None:
    """Describe what a TPU sends to the other slices with this instruction, if it does."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.arguments)
    if instruction.opcode != "send" or not kind or not count:
        return None
    name, shape = kind[1].lower().replace("_", "-"), instruction.shapes[0]
    name = {"one-to-one": "collective-permute"}.get(name, name)
    if name == "all-gather":  # from each slice's part to the whole
        shape = dataclasses.replace(shape, dims=(slices, *shape.dims))
    return Collective(
        kind=name,
        shapes=(shape,),
        group_size=slices,
        count=count,
        source=instruction.name,
        gathered_shapes=(shape,) if name == "all-gather" else (),
        crosses_slices=True,
    )


def _spans_slices(text: str, program: HloProgram, devices_per_slice: int) -> bool:
    """Tell whether devices of several slices or nodes take part in one group.

    The programs of TPU slices know the devices of their own slice alone.
    """
    if pairs := re.search(r"source_target_pairs=\{([\d,{}]*)\}", text):
        devices = [int(n) for n in re.findall(r"\d+", pairs[1])]
        groups = np.reshape(devices, (-1, 2))
    else:
        groups = np.asarray([first_group(text, program.num_partitions)])
    slices = groups // devices_per_slice
    return bool(np.any(slices != slices[:, :1]))


def first_group(text: str, num_devices: int) -> list[int]:
    """Return the devices of the first replica group, from any of the forms that HLO has.

    The forms are a list, an iota, and axes of a mesh, of which an axis may be split:
    'b':(2)4 are the 4 parts of axis b that follow 2 outer ones.
    """
    if named := _NAMED_GROUPS.search(text):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named[1])}
        devices = _iota(named[2] or f"[{math.prod(sizes.values())}]")
        devices = devices.reshape(tuple(sizes.values()))
        axes = {
            name: (int(outer or 1), int(part or sizes[name]))
            for name, outer, part in re.findall(
                r"'(\w+)'(?::\((\d+)\)(\d+))?", named[3]
            )
        }
        for i, (name, size) in enumerate(sizes.items()):
            outer, part = axes.get(name, (1, 1))
            inner = size // outer // part
            indices = np.arange(size).reshape(outer, part, inner)[0, :, 0]
            devices = devices.take(indices, axis=i)
        return devices.ravel().tolist()
    if iota := re.search(
        r"replica_groups=\[\d+,(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text
    ):
        return _iota(iota[2]).ravel()[: int(iota[1])].tolist()
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return [int(n) for n in listed[1].split(",")]
    return list(range(num_devices))


_NAMED_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\)?)\))? \{([^}]*)\}"
)


def _iota(text: str) -> np.ndarray:
    """Return the numbers from 0 that HLO writes as [4,2]T(1,0), here transposed."""
    match = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    assert match is not None
    dims = [int(n) for n in match[1].split(",")]
    numbers = np.arange(math.prod(dims)).reshape(dims)
    return (
        numbers.transpose([int(n) for n in match[2].split(",")])
        if match[2]
        else numbers
    )


def _collective(
    program: HloProgram,
    computation: str,
    instruction: HloInstruction,
    kind: str,
    count: int,
) -> Collective:
    """Describe one collective instruction that counts as `kind`."""
    opcode, arguments = instruction.opcode, instruction.arguments
    group_size = len(first_group(arguments, program.num_partitions))
    shapes = instruction.shapes
    if opcode in ("all-gather-start", "reduce-scatter-start"):  # (operands, results)
        shapes = shapes[len(shapes) // 2 :]
    elif opcode == "collective-permute-start":  # (operand, result, contexts)
        shapes = shapes[1:2]
    if opcode.startswith("reduce-scatter"):  # from each device's part to the whole
        shapes = tuple(
            dataclasses.replace(s, dims=(group_size, *s.dims)) for s in shapes
        )
    by_name = program.instructions_by_name(computation)
    gathered = shapes if kind == "all-gather" else ()
    if gathered and _is_from_network(by_name, instruction.operands):
        gathered = ()  # the end of a sum over slices, each device of which took its part
    if kind == "all-reduce":
        gathered = tuple(
            shape
            for shape, operand in zip(shapes, instruction.operands, strict=False)
            if _is_part_in_zeros(program, by_name, operand)
        )
    source = re.search(r'op_name="([^"]*)"', arguments)
    return Collective(
        kind=kind,
        shapes=shapes,
        group_size=group_size,
        count=count,
        source=source[1] if source else instruction.name,
        gathered_shapes=gathered,
    )


def _is_from_network(by_name: dict[str, HloInstruction], names: list[str]) -> bool:
    """Tell whether an operand was received from other slices."""
    instruction = by_name.get(names[0]) if names else None
    while instruction and instruction.opcode in ("bitcast", "get-tuple-element"):
        instruction = by_name.get(instruction.operands[0])
    return instruction is not None and instruction.opcode == "recv-done"


def _is_part_in_zeros(
    program: HloProgram, by_name: dict[str, HloInstruction], name: str
) -> bool:
    """Tell whether an operand is a part that was written into an array of zeros."""
    instruction = by_name.get(name)
    while instruction and instruction.opcode in ("bitcast", "copy", "fusion"):
        if instruction.opcode == "fusion":
            fused = instruction.called_computations()["calls"][0]
            by_name = program.instructions_by_name(fused)
            instruction = next(i for i in by_name.values() if i.is_root)
        else:
            instruction = by_name.get(instruction.operands[0])
    return instruction is not None and instruction.opcode == "dynamic-update-slice"


def _is_sharded(mesh: jax.sharding.Mesh, leaf) -> bool:
    """Tell whether a parameter is sharded over the axis `fsdp`."""
    return "fsdp" in meshes.leaf_sharding(mesh, leaf).spec


def gathered_activations(
    collectives: Iterable[Collective], params, mesh: jax.sharding.Mesh
) -> list[Collective]:
    """Return the gathers of anything but parameters that are sharded over `fsdp`.

    Compilers reshape and transpose parameters, so a parameter is recognized by its number
    of elements, alone or with the layers that a scan stacks. One that is gathered over a
    part of `fsdp` counts with the size that it will have. Vectors are ignored: nothing
    large has one dimension.
    """
    fsdp, sizes = mesh.shape["fsdp"], set()
    for leaf in trees.leaves_by_path(params).values():
        if _is_sharded(mesh, leaf):
            sizes |= {leaf.size, leaf.size // leaf.shape[0]}

    def is_parameter(shape: HloShape, collective: Collective) -> bool:
        size = math.prod(shape.dims)
        is_vector = sum(n > 1 for n in shape.dims) < 2
        full_size = size * fsdp // collective.group_size
        return is_vector or size in sizes or full_size in sizes

    return [
        c for c in collectives if not all(is_parameter(s, c) for s in c.gathered_shapes)
    ]


def minimum_sent_bytes(
    params, mesh: jax.sharding.Mesh, itemsize: int, slices: int = 1
) -> dict[str, int]:
    """Return the bytes that a device has to send within its slice per step, by kind.

    Sharded parameters are gathered twice, for the forward and the backward pass, and their
    gradients scattered once. Each part is reduced over `data`, and parameters that are not
    sharded are reduced over all devices. `itemsize` is the size of a number in bytes.
    """
    data, fsdp = mesh.shape["data"] // slices, mesh.shape["fsdp"]
    sharded, replicated = _parameter_bytes(params, mesh, itemsize)
    over_fsdp, over_data = (fsdp - 1) / fsdp, (data - 1) / data
    over_all = (data * fsdp - 1) / (data * fsdp)
    return {
        "all-gather": round(2 * over_fsdp * sharded),
        "reduce-scatter": round(over_fsdp * sharded),
        "all-reduce": round(2 * over_data * sharded / fsdp + 2 * over_all * replicated),
        "all-to-all": 0,
        "collective-permute": 0,
    }


def minimum_network_bytes(
    params, mesh: jax.sharding.Mesh, itemsize: int, slices: int
) -> int:
    """Return the bytes that a device has to send to other slices per step.

    Gradients are reduced within each slice first, and the slices reduce the sums.
    """
    per_device = sum(_parameter_bytes(params, mesh, itemsize)) / (mesh.size // slices)
    return round(2 * (slices - 1) / slices * per_device)


def _parameter_bytes(params, mesh: jax.sharding.Mesh, itemsize: int) -> tuple[int, int]:
    """Return the bytes of all parameters that are sharded, and of those that are not."""
    sharded = replicated = 0
    for leaf in trees.leaves_by_path(params).values():
        if _is_sharded(mesh, leaf):
            sharded += leaf.size * itemsize
        else:
            replicated += leaf.size * itemsize
    return sharded, replicated
