"""The text of a compiled program: computations, instructions, and how often each runs."""

import dataclasses
import math
import re
from collections import defaultdict

BITS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_TRIPS = re.compile(r"known_trip_count[^\d}]*(\d+)")
# In these attributes a list of computations, or one, is named.
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """fast: it lies in a chip's own vector memory, not in HBM."""

    dtype: str
    dims: tuple[int, ...]
    fast: bool = False

    @property
    def nbytes(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        bits = BITS.get(self.dtype, int(digits[0]) if digits else 8)
        return math.prod(self.dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """shapes: of its results, flattened. rest: everything behind the opcode."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        """Names, from `rest`, which begins inside the parenthesis of operands."""
        depth, end = 1, len(self.rest)
        for at, c in enumerate(self.rest):
            depth += (c in "({[") - (c in ")}]")
            if not depth:
                end = at
                break
        return re.findall(r"%([\w.\-]+)", self.rest[:end])

    def called(self) -> dict[str, list[str]]:
        """Computations by the attribute that names them."""
        return {
            key: re.findall(r"[\w.\-]+", value)
            for key, value in _CALLED.findall(self.rest)
        }


@dataclasses.dataclass(frozen=True)
class Program:
    """computations by name; the entry; devices that the program is split over."""

    computations: dict[str, list[Instruction]]
    entry: str
    partitions: int
    _named: dict[str, dict[str, Instruction]] = dataclasses.field(default_factory=dict)
    _users: dict[str, dict[str, list[Instruction]]] = dataclasses.field(
        default_factory=dict
    )

    def times(self) -> dict[str, int]:
        """How often each computation runs in one call of the program."""
        found: dict[str, int] = defaultdict(int)
        callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for name, instructions in self.computations.items():
            for i in instructions:
                called = i.called()
                trips = self.trips(i, called) if i.opcode == "while" else 1
                for callee in sum(called.values(), []):
                    callers[callee].append((name, trips))

        def count(name: str) -> int:
            if name not in found:
                found[name] = int(name == self.entry) + sum(
                    trips * count(caller) for caller, trips in callers[name]
                )
            return found[name]

        return {name: count(name) for name in self.computations}

    def named(self, computation: str) -> dict[str, Instruction]:
        """Its instructions by name."""
        if computation not in self._named:
            instructions = self.computations[computation]
            self._named[computation] = {i.name: i for i in instructions}
        return self._named[computation]

    def users(self, computation: str) -> dict[str, list[Instruction]]:
        """Who reads each of its instructions."""
        if computation not in self._users:
            found: dict[str, list[Instruction]] = defaultdict(list)
            for i in self.computations[computation]:
                for operand in dict.fromkeys(i.operands):
                    found[operand].append(i)
            self._users[computation] = found
        return self._users[computation]

    def trips(self, loop: Instruction, called: dict[str, list[str]]) -> int:
        """A loop's length: as annotated, or the one bound that its condition has.

        A loop of unknown length counts once.
        """
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        bounds = [
            int(value[0])
            for i in self.computations[called["condition"][0]]
            if i.opcode == "constant" and (value := re.match(r"\d+", i.rest))
        ]
        return bounds[0] if len(bounds) == 1 else 1


def shapes(text: str) -> tuple[Shape, ...]:
    """All array shapes in a result's type."""
    return tuple(
        Shape(d, tuple(map(int, filter(None, dims.split(",")))), "S(1)" in layout)
        for d, dims, layout in _SHAPE.findall(re.sub(r"/\*.*?\*/", "", text))
    )


def parse(text: str) -> Program:
    """The program of `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry, inside = "", None
    partitions = re.search(r"num_partitions=(\d+)", text.split("\n", 1)[0])
    for line in text.splitlines():
        if inside is None:
            if head := _COMPUTATION.match(line):
                inside = head[2]
                computations[inside] = []
                entry = inside if head[1] else entry
        elif line.startswith("}"):
            inside = None
        elif (found := _INSTRUCTION.match(line)) and (
            code := _OPCODE.search(" " + found[3])
        ):
            body = " " + found[3]
            result, rest = body[: code.start()], body[code.end() :]
            computations[inside].append(
                Instruction(found[2], code[1], shapes(result), rest, bool(found[1]))
            )
    return Program(computations, entry, int(partitions[1]) if partitions else 1)
