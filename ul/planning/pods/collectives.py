"""The data that a compiled step sends between devices, and the minimum it must send."""

import dataclasses
import math
import re
from collections.abc import Iterable

import jax

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
    """

    kind: str
    shapes: tuple[HloShape, ...]
    group_size: int
    count: int
    source: str
    gathered_shapes: tuple[HloShape, ...] = ()

    @property
    def sent_bytes(self) -> int:
        """Bytes that a device sends per step, if the operation runs as a ring."""
        nbytes = sum(s.nbytes for s in self.shapes)
        if self.kind == "collective-permute":
            return nbytes * self.count
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * nbytes * (self.group_size - 1) // self.group_size * self.count


def find_collectives(program: HloProgram) -> list[Collective]:
    """Return every collective of the program once.

    TPU compilers spread one collective over several fusions that run beside it; a chain id
    identifies it. They also write a reduce-scatter as a fusion named all-reduce-scatter.
    The channel id does not identify a collective: combined ones share it.
    """
    counts = program.execution_counts()
    collectives: dict[tuple[str, str], Collective] = {}
    for name, instructions in program.computations.items():
        for instruction in instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS or not counts[name]:
                continue
            chain = re.search(r'chain_id="(\d+)"', instruction.arguments)
            key = (kind, chain[1]) if chain else (name, instruction.name)
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            collective = _collective(program, name, instruction, kind, counts[name])
            if key not in collectives or collectives[key].count < collective.count:
                collectives[key] = collective
    return [c for c in collectives.values() if c.group_size > 1]


def _collective(
    program: HloProgram,
    computation: str,
    instruction: HloInstruction,
    kind: str,
    count: int,
) -> Collective:
    """Describe one collective instruction that counts as `kind`."""
    opcode, arguments = instruction.opcode, instruction.arguments
    group_size = parse_group_size(arguments, program.num_partitions)
    shapes = instruction.shapes
    if opcode in ("all-gather-start", "reduce-scatter-start"):  # (operands, results)
        shapes = shapes[len(shapes) // 2 :]
    elif opcode == "collective-permute-start":  # (operand, result, contexts)
        shapes = shapes[1:2]
    if opcode.startswith("reduce-scatter"):  # from each device's part to the whole
        shapes = tuple(
            dataclasses.replace(s, dims=(group_size, *s.dims)) for s in shapes
        )
    gathered = shapes if kind == "all-gather" else ()
    if kind == "all-reduce":
        by_name = program.instructions_by_name(computation)
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


def parse_group_size(text: str, num_devices: int) -> int:
    """Return the devices in one replica group, from any of the forms that HLO has."""
    if named := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? \{([^}]*)\}", text
    ):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(listed[1].split(","))
    return num_devices


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
    params, mesh: jax.sharding.Mesh, itemsize: int
) -> dict[str, int]:
    """Return the bytes that a device has to send per step, by kind of collective.

    Sharded parameters are gathered twice, for the forward and the backward pass, and their
    gradients scattered once. Each part is reduced over `data`, and parameters that are not
    sharded are reduced over all devices. `itemsize` is the size of a number in bytes.
    """
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    sharded = replicated = 0
    for leaf in trees.leaves_by_path(params).values():
        if _is_sharded(mesh, leaf):
            sharded += leaf.size * itemsize
        else:
            replicated += leaf.size * itemsize
    over_fsdp, over_data = (fsdp - 1) / fsdp, (data - 1) / data
    over_all = (data * fsdp - 1) / (data * fsdp)
    return {
        "all-gather": round(2 * over_fsdp * sharded),
        "reduce-scatter": round(over_fsdp * sharded),
        "all-reduce": round(2 * over_data * sharded / fsdp + 2 * over_all * replicated),
        "all-to-all": 0,
        "collective-permute": 0,
    }
