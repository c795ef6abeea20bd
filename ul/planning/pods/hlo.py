"""Parse the text of an optimized HLO program, and count how often each part runs."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

# Types whose width is not in their name.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_TRIP_COUNT = re.compile(r"known_trip_count[^\d}]*(\d+)")
# The attributes that name one computation or a list of them.
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class HloShape:
    """Type and dimensions of an array.

    `in_vector_memory`: it lies in the chip's own vector memory, not in HBM.
    """

    dtype: str
    dims: tuple[int, ...]
    in_vector_memory: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        digits = re.search(r"\d+", self.dtype)
        bits = BITS.get(self.dtype, int(digits[0]) if digits else 8)
        return math.prod(self.dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class HloInstruction:
    """One line of a computation.

    `shapes` are those of its results, flattened. `arguments` is the text after the
    opcode's parenthesis: operands first, then attributes.
    """

    name: str
    opcode: str
    shapes: tuple[HloShape, ...]
    arguments: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it reads."""
        depth, end = 1, len(self.arguments)
        for position, c in enumerate(self.arguments):
            depth += (c in "({[") - (c in ")}]")
            if not depth:
                end = position
                break
        return re.findall(r"%([\w.\-]+)", self.arguments[:end])

    def called_computations(self) -> dict[str, list[str]]:
        """Return the computations it calls, by the attribute that names them."""
        return {
            attribute: re.findall(r"[\w.\-]+", value)
            for attribute, value in _CALLED.findall(self.arguments)
        }


@dataclasses.dataclass(frozen=True)
class HloProgram:
    """Computations by name, the name of the entry, and the number of devices."""

    computations: dict[str, list[HloInstruction]]
    entry: str
    num_partitions: int
    _by_name: dict[str, dict[str, HloInstruction]] = dataclasses.field(
        default_factory=dict
    )
    _users: dict[str, dict[str, list[HloInstruction]]] = dataclasses.field(
        default_factory=dict
    )

    def execution_counts(self) -> dict[str, int]:
        """Return how often each computation runs in one call of the program."""
        counts: dict[str, int] = {}
        callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for name, instructions in self.computations.items():
            for instruction in instructions:
                called = instruction.called_computations()
                is_loop = instruction.opcode == "while"
                trips = self.trip_count(instruction, called) if is_loop else 1
                for callee in sum(called.values(), []):
                    callers[callee].append((name, trips))

        def count(name: str) -> int:
            if name not in counts:
                counts[name] = int(name == self.entry) + sum(
                    trips * count(caller) for caller, trips in callers[name]
                )
            return counts[name]

        return {name: count(name) for name in self.computations}

    def instructions_by_name(self, computation: str) -> dict[str, HloInstruction]:
        """Return the instructions of a computation by their names."""
        if computation not in self._by_name:
            instructions = self.computations[computation]
            self._by_name[computation] = {i.name: i for i in instructions}
        return self._by_name[computation]

    def users(self, computation: str) -> dict[str, list[HloInstruction]]:
        """Return the instructions that read each instruction of a computation."""
        if computation not in self._users:
            users: dict[str, list[HloInstruction]] = defaultdict(list)
            for instruction in self.computations[computation]:
                for operand in dict.fromkeys(instruction.operands):
                    users[operand].append(instruction)
            self._users[computation] = users
        return self._users[computation]

    def trip_count(self, loop: HloInstruction, called: dict[str, list[str]]) -> int:
        """Return a loop's length: as annotated, or the one bound in its condition.

        A loop of unknown length counts once.
        """
        if annotated := _TRIP_COUNT.search(loop.arguments):
            return int(annotated[1])
        bounds = [
            int(value[0])
            for i in self.computations[called["condition"][0]]
            if i.opcode == "constant" and (value := re.match(r"\d+", i.arguments))
        ]
        return bounds[0] if len(bounds) == 1 else 1


def parse_shapes(text: str) -> tuple[HloShape, ...]:
    """Parse all array shapes in the type of a result."""
    return tuple(
        HloShape(
            dtype, tuple(map(int, filter(None, dims.split(",")))), "S(1)" in layout
        )
        for dtype, dims, layout in _SHAPE.findall(re.sub(r"/\*.*?\*/", "", text))
    )


def _join_instructions(text: str) -> Iterator[str]:
    """Yield the lines of a program, with instructions of several lines as one.

    The attributes of a Pallas kernel contain line breaks, within braces.

    Raises:
      ValueError: the braces of an instruction are never closed.
    """
    open_line, depth = "", 0
    for line in text.splitlines():
        if open_line or _INSTRUCTION.match(line):
            open_line += line
            unquoted = _QUOTED.sub("", line)
            depth += unquoted.count("{") - unquoted.count("}")
            if depth > 0:
                continue
            line, open_line, depth = open_line, "", 0
        yield line
    if open_line:
        raise ValueError(f"HLO must close its braces: {open_line[:100]}")


def parse(text: str) -> HloProgram:
    """Parse the text that `compiled.as_text()` returns."""
    computations: dict[str, list[HloInstruction]] = {}
    entry, current = "", None
    num_partitions = re.search(r"num_partitions=(\d+)", text.split("\n", 1)[0])
    for line in _join_instructions(text):
        if current is None:
            if header := _COMPUTATION.match(line):
                current = header[2]
                computations[current] = []
                entry = current if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif (match := _INSTRUCTION.match(line)) and (
            opcode := _OPCODE.search(" " + match[3])
        ):
            body = " " + match[3]
            computations[current].append(
                HloInstruction(
                    name=match[2],
                    opcode=opcode[1],
                    shapes=parse_shapes(body[: opcode.start()]),
                    arguments=body[opcode.end() :],
                    is_root=bool(match[1]),
                )
            )
    partitions = int(num_partitions[1]) if num_partitions else 1
    return HloProgram(computations, entry, partitions)
