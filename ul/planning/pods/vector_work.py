"""Count the elementwise operations of a compiled program."""

import math

from ul.planning.pods.hlo import HloInstruction, HloProgram

# One operation per element of the result.
_ELEMENTWISE = {
    "abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "convert", "cosine",
    "count-leading-zeros", "divide", "erf", "exponential", "exponential-minus-one", "floor",
    "is-finite", "log", "log-plus-one", "logistic", "maximum", "minimum", "multiply",
    "negate", "not", "or", "popcnt", "power", "remainder", "round-nearest-afz",
    "round-nearest-even", "rng-bit-generator", "rsqrt", "select", "shift-left",
    "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sqrt", "subtract",
    "tan", "tanh", "xor",
}  # fmt: skip
# One operation per element of the first operand.
_REDUCTIONS = {"reduce", "reduce-window"}


def vector_operations(program: HloProgram) -> int:
    """Return the elementwise operations of one call of the program, on one device.

    Each counts once per element, whatever its type and whatever it costs. What a kernel
    of Pallas or a library computes within a custom call is not visible and not counted.
    """
    counts = program.execution_counts()
    return sum(
        counts[name] * sum(_operations(program, name, i) for i in instructions)
        for name, instructions in program.computations.items()
        if counts[name]
    )


def _operations(
    program: HloProgram, computation: str, instruction: HloInstruction
) -> int:
    if instruction.opcode in _ELEMENTWISE:
        return math.prod(instruction.shapes[-1].dims)
    if instruction.opcode in _REDUCTIONS:
        source = program.instructions_by_name(computation)[instruction.operands[0]]
        return math.prod(source.shapes[0].dims)
    return 0
