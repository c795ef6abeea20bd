"""What a compiled step sends between devices, and the least that it could."""

import dataclasses
import math
import re
from collections.abc import Iterable

import jax

from ul.core import mesh as meshes
from ul.core import trees
from ul.pods.hlo import Instruction, Program, Shape

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

    shapes: whole arrays, gathered or before they are reduced. axis: of a gather.
    disguised: of each array of an all-reduce, whether it is a gather: every device
    adds its part to zeros.
    """

    kind: str
    shapes: tuple[Shape, ...]
    group: int
    axis: int | None
    times: int
    source: str
    disguised: tuple[bool, ...] = ()

    @property
    def sent(self) -> int:
        """Bytes that a device sends in a step, by the ring algorithms' counts."""
        nbytes = sum(s.nbytes for s in self.shapes)
        rounds = {"all-reduce": 2, "collective-permute": 0}.get(self.kind, 1)
        if not rounds:
            return nbytes * self.times
        return rounds * nbytes * (self.group - 1) // self.group * self.times


def of(program: Program) -> list[Collective]:
    """Every collective of the program, each channel once.

    TPU compilers spread one over many fusions that run beside it (its channel names
    it), and write a reduce-scatter as a fusion called all-reduce-scatter.
    """
    times: dict[str, int] = program.times()
    found: dict[tuple[str, str], Collective] = {}
    for name, instructions in program.computations.items():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS or not times[name]:
                continue
            channel = re.search(r"channel_id=(\d+)", i.rest)
            key = (kind, channel[1]) if channel else (kind, i.name)
            scattered = kind == "all-reduce" and name.startswith("all-reduce-scatter")
            made = _collective(i, kind, scattered, times[name], program.partitions)
            if kind == "all-reduce" and not scattered:
                parts = program.named(name)
                disguised = tuple(_onto_zeros(program, parts, o) for o in i.operands)
                made = dataclasses.replace(made, disguised=disguised)
            if key not in found or found[key].times < made.times:
                found[key] = made
    return [c for c in found.values() if c.group > 1]


def _collective(
    i: Instruction, kind: str, scattered: bool, times: int, devices: int
) -> Collective:
    group = group_size(i.rest, devices)
    results = i.shapes
    if i.opcode.endswith("-start"):
        if kind == "all-gather":  # (operands, results)
            results = results[len(results) // 2 :]
        elif kind == "collective-permute":  # (operand, result, contexts)
            results = results[1:2]
    if kind == "reduce-scatter":  # from what is left to what there was
        results = tuple(dataclasses.replace(s, dims=(group, *s.dims)) for s in results)
    axis = re.search(r"dimensions=\{(\d+)\}", i.rest) if kind == "all-gather" else None
    source = re.search(r'op_name="([^"]*)"', i.rest)
    return Collective(
        "reduce-scatter" if scattered else kind,
        results,
        group,
        int(axis[1]) if axis else None,
        times,
        source[1] if source else i.name,
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

    A parameter is known by the dimension that is gathered and by its other ones, in
    any order, with or without the layers that a scan stacks; in an all-reduce by its
    size alone. Vectors pass: nothing large has one dimension.
    """
    known, sizes = set(), set()
    for leaf in trees.paths(params).values():
        spec = meshes.leaf_sharding(mesh, leaf).spec
        if "fsdp" in spec:
            axis = spec.index("fsdp")
            rest = [n for i, n in enumerate(leaf.shape) if i != axis]
            known |= {_key(leaf.shape[axis], rest)}
            known |= {_key(leaf.shape[axis], rest[1:])}
            sizes |= {leaf.size, leaf.size // leaf.shape[0]}

    def passes(c: Collective) -> bool:
        if c.kind == "all-gather":
            return all(_passes(s, c, known) for s in c.shapes)
        return all(
            not disguised or len(s.dims) < 2 or math.prod(s.dims) in sizes
            for s, disguised in zip(c.shapes, c.disguised, strict=False)
        )

    return [c for c in found if not passes(c)]


def _key(gathered: int, others: Iterable[int]) -> tuple:
    return gathered, tuple(sorted(n for n in others if n > 1))


def _passes(shape: Shape, c: Collective, known: set) -> bool:
    dims = [n for n in shape.dims if n > 1]
    if len(dims) < 2 or c.axis is None:
        return len(dims) < 2
    rest = shape.dims[: c.axis] + shape.dims[c.axis + 1 :]
    return _key(shape.dims[c.axis], rest) in known


def least(params, mesh: jax.sharding.Mesh, itemsize: int) -> dict[str, int]:
    """Bytes that a device must send in a step, by kind, with numbers of `itemsize`.

    Split parameters are gathered twice, forward and backward, and their gradients
    scattered once; over `data` each part is reduced, and over all what is not split.
    """
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    split = whole = 0
    for leaf in trees.paths(params).values():
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
