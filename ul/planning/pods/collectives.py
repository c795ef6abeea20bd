"""What a compiled step sends between devices, and the least that it could."""

import dataclasses
import math
import re
from collections.abc import Iterable

import jax

from ul.core import mesh as meshes
from ul.core import trees
from ul.planning.pods.hlo import Instruction, Program, Shape

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation: `times` a step, `group` devices together.

    shapes: whole arrays, gathered or before they are reduced. gathered: those of them
    that are put together, also by an all-reduce to which every device gives its part
    and zeros.
    """

    kind: str
    shapes: tuple[Shape, ...]
    group: int
    times: int
    source: str
    gathered: tuple[Shape, ...] = ()

    @property
    def sent(self) -> int:
        """Bytes that a device sends in a step, by the ring algorithms' counts."""
        nbytes = sum(s.nbytes for s in self.shapes)
        rounds = {"all-reduce": 2, "collective-permute": 0}.get(self.kind, 1)
        if not rounds:
            return nbytes * self.times
        return rounds * nbytes * (self.group - 1) // self.group * self.times


def of(program: Program) -> list[Collective]:
    """Every collective of the program, each once.

    TPU compilers spread one over many fusions that run beside it (a chain names it),
    and write a reduce-scatter as a fusion called all-reduce-scatter. Channels name
    nothing: what was combined shares one.
    """
    times: dict[str, int] = program.times()
    found: dict[tuple[str, str], Collective] = {}
    for name, instructions in program.computations.items():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS or not times[name]:
                continue
            chain = re.search(r'chain_id="(\d+)"', i.rest)
            key = (kind, chain[1]) if chain else (name, i.name)
            scattered = kind == "all-reduce" and name.startswith("all-reduce-scatter")
            made = _collective(i, kind, scattered, times[name], program.partitions)
            if kind == "all-reduce" and not scattered:
                parts = program.named(name)
                gathered = tuple(
                    shape
                    for shape, operand in zip(i.shapes, i.operands, strict=False)
                    if _onto_zeros(program, parts, operand)
                )
                made = dataclasses.replace(made, gathered=gathered)
            if key not in found or found[key].times < made.times:
                found[key] = made
    return [c for c in found.values() if c.group > 1]


def _collective(
    i: Instruction, kind: str, scattered: bool, times: int, devices: int
) -> Collective:
    group = group_size(i.rest, devices)
    results = i.shapes
    if i.opcode.endswith("-start"):
        if kind in ("all-gather", "reduce-scatter"):  # (operands, results)
            results = results[len(results) // 2 :]
        elif kind == "collective-permute":  # (operand, result, contexts)
            results = results[1:2]
    if kind == "reduce-scatter":  # from what is left to what there was
        results = tuple(dataclasses.replace(s, dims=(group, *s.dims)) for s in results)
    source = re.search(r'op_name="([^"]*)"', i.rest)
    return Collective(
        "reduce-scatter" if scattered else kind,
        results,
        group,
        times,
        source[1] if source else i.name,
        results if kind == "all-gather" else (),
    )


def _onto_zeros(program: Program, parts: dict[str, Instruction], name: str) -> bool:
    """An operand made by writing a part into an array of zeros."""
    made = parts.get(name)
    while made is not None and made.opcode in ("bitcast", "copy", "fusion"):
        if made.opcode == "fusion":
            inside = program.computations[made.called()["calls"][0]]
            parts = program.named(made.called()["calls"][0])
            made = next(i for i in inside if i.root)
        else:
            made = parts.get(made.operands[0])
    return made is not None and made.opcode == "dynamic-update-slice"


def group_size(text: str, devices: int) -> int:
    """Devices in one replica group, of any of the forms that HLO has for them."""
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
    return devices


def gathered_activations(
    found: Iterable[Collective], params, mesh: jax.sharding.Mesh
) -> list[Collective]:
    """Gathers of something that is no parameter split over `fsdp`.

    A parameter is known by its number of elements, alone or with the layers that a scan
    stacks: compilers reshape and turn them. One gathered by a part of `fsdp` counts for
    as much as it will be. Vectors pass: nothing large has one dimension.
    """
    fsdp, sizes = mesh.shape["fsdp"], set()
    for leaf in trees.leaves_by_path(params).values():
        if "fsdp" in meshes.leaf_sharding(mesh, leaf).spec:
            sizes |= {leaf.size, leaf.size // leaf.shape[0]}

    def passes(shape: Shape, c: Collective) -> bool:
        size, vector = math.prod(shape.dims), sum(n > 1 for n in shape.dims) < 2
        return vector or size in sizes or size * fsdp // c.group in sizes

    return [c for c in found if not all(passes(s, c) for s in c.gathered)]


def least(params, mesh: jax.sharding.Mesh, itemsize: int) -> dict[str, int]:
    """Bytes that a device must send in a step, by kind, with numbers of `itemsize`.

    Split parameters are gathered twice, forward and backward, and their gradients
    scattered once; over `data` each part is reduced, and over all what is not split.
    """
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    split = whole = 0
    for leaf in trees.leaves_by_path(params).values():
        if "fsdp" in meshes.leaf_sharding(mesh, leaf).spec:
            split += leaf.size * itemsize
        else:
            whole += leaf.size * itemsize
    over_fsdp, over_data = (fsdp - 1) / fsdp, (data - 1) / data
    over_all = (data * fsdp - 1) / (data * fsdp)
    return {
        "all-gather": round(2 * over_fsdp * split),
        "reduce-scatter": round(over_fsdp * split),
        "all-reduce": round(2 * over_data * split / fsdp + 2 * over_all * whole),
        "all-to-all": 0,
        "collective-permute": 0,
    }
