"""Count the bytes that a compiled program moves to and from a device's memory."""

from ul.planning.pods.hlo import HloInstruction, HloProgram, HloShape

# These move nothing, or what they move is counted inside the computation they call.
_FREE_OPCODES = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "copy-done", "partition-id", "after-all", "iota",
}  # fmt: skip
_BODY_ATTRIBUTES = {"body", "condition", "branch_computations", "called_computations"}


def memory_traffic(program: HloProgram) -> int:
    """Return the bytes of all operands read and results written, with loops counted.

    Of a slice only the bytes it reads count, of an update in place only those it writes.
    Arrays in a chip's vector memory and values inside a fusion are free.
    """
    counts = program.execution_counts()
    total = 0
    for name in _sequential_computations(program):
        total += counts[name] * sum(
            _moved_bytes(program, name, i)
            for i in program.computations[name]
            if i.opcode not in _FREE_OPCODES
            and not i.opcode.endswith("-done")
            and not _is_allocation(i)
        )
    return total


def _is_allocation(instruction: HloInstruction) -> bool:
    """Tell whether an instruction only reserves memory."""
    return 'custom_call_target="AllocateBuffer"' in instruction.arguments


def _sequential_computations(program: HloProgram) -> set[str]:
    """Return the entry and all bodies: computations that run instruction by instruction."""
    visited: set[str] = set()
    pending = [program.entry]
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        for instruction in program.computations[name]:
            for attribute, callees in instruction.called_computations().items():
                if attribute in _BODY_ATTRIBUTES or instruction.opcode == "call":
                    pending += [c for c in callees if c in program.computations]
    return visited


def _result_bytes(instruction: HloInstruction) -> int:
    shapes = [s for s in instruction.shapes if not s.in_vector_memory]
    if instruction.opcode == "custom-call" and len(shapes) > 1:
        shapes = [s for s in shapes if s.dtype != "s8"]  # a library's scratch space
    return sum(s.nbytes for s in shapes)


def _moved_bytes(
    program: HloProgram, computation: str, instruction: HloInstruction
) -> int:
    """Return the bytes that one instruction reads and writes."""
    by_name = program.instructions_by_name(computation)
    operands = [by_name[o] for o in instruction.operands if o in by_name]
    if instruction.opcode == "dynamic-slice":
        return 2 * _result_bytes(instruction)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _result_bytes(operands[1])
    if instruction.opcode.startswith("copy-start"):
        return sum(s.nbytes for s in instruction.shapes[:2] if not s.in_vector_memory)
    if instruction.opcode != "fusion":
        return _result_bytes(instruction) + sum(map(_result_bytes, operands))
    fused = instruction.called_computations()["calls"][0]
    read = sum(
        min(_result_bytes(operand), _fusion_read_bytes(program, fused, number))
        for number, operand in enumerate(operands)
    )
    return read + sum(_fusion_written_bytes(program, fused, instruction.shapes))


def _fusion_read_bytes(program: HloProgram, computation: str, number: int) -> int:
    """Return the bytes that a fusion reads of its operand `number`.

    These are the slices if it is only sliced, nothing if it is only updated in place, and
    the whole array otherwise.
    """
    pending = [
        i
        for i in program.computations[computation]
        if i.opcode == "parameter" and i.arguments.startswith(f"{number})")
    ]
    whole, total = sum(s.nbytes for s in pending[0].shapes), 0
    while pending:
        source = pending.pop()
        for user in program.users(computation)[source.name]:
            if user.opcode == "dynamic-slice":
                total += sum(s.nbytes for s in user.shapes)
            elif (
                user.opcode == "dynamic-update-slice"
                and user.operands[0] == source.name
            ):
                continue
            elif user.opcode == "bitcast":
                pending.append(user)
            elif user.opcode == "fusion":
                fused = user.called_computations()["calls"][0]
                operand = user.operands.index(source.name)
                total += _fusion_read_bytes(program, fused, operand)
            else:
                return whole
    return min(total, whole)


def _fusion_written_bytes(
    program: HloProgram, computation: str, shapes: tuple[HloShape, ...]
) -> list[int]:
    """Return the bytes that a fusion writes for each result; in place, only the update."""
    by_name = program.instructions_by_name(computation)

    def written(result: HloInstruction, shape: HloShape) -> int:
        while result.opcode == "bitcast":
            result = by_name[result.operands[0]]
        if result.opcode == "dynamic-update-slice":
            return sum(s.nbytes for s in by_name[result.operands[1]].shapes)
        if result.opcode == "fusion" and len(result.shapes) == 1:
            fused = result.called_computations()["calls"][0]
            return _fusion_written_bytes(program, fused, (shape,))[0]
        return 0 if shape.in_vector_memory else shape.nbytes

    root = next(i for i in by_name.values() if i.is_root)
    is_tuple = root.opcode == "tuple"
    results = [by_name[o] for o in root.operands] if is_tuple else [root]
    return [written(r, s) for r, s in zip(results, shapes, strict=False)]
