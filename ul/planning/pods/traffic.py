"""Bytes that a compiled program moves to and from a device's memory."""

from ul.planning.pods.hlo import Instruction, Program, Shape

# They move nothing, or what they move is counted inside what they call.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "copy-done", "partition-id", "after-all", "iota",
}  # fmt: skip
_BODIES = {"body", "condition", "branch_computations", "called_computations"}


def of(program: Program) -> int:
    """Operands read and results written by every operation, loops counted.

    Of a slice alone what is read, of an update in place what is written; what lies in
    a chip's vector memory is free, as is everything inside a fusion.
    """
    times = program.times()
    total = 0
    for name in _sequences(program):
        total += times[name] * sum(
            _moved(program, name, i)
            for i in program.computations[name]
            if i.opcode not in _FREE and not i.opcode.endswith("-done")
        )
    return total


def _sequences(program: Program) -> set[str]:
    """The entry and all bodies: computations whose instructions run one by one."""
    found, todo = set(), [program.entry]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for i in program.computations[name]:
            for key, callees in i.called().items():
                if key in _BODIES or i.opcode == "call":
                    todo += [c for c in callees if c in program.computations]
    return found


def _bytes(i: Instruction) -> int:
    shapes = [s for s in i.shapes if not s.fast]
    if i.opcode == "custom-call" and len(shapes) > 1:
        shapes = [s for s in shapes if s.dtype != "s8"]  # a library's scratch
    return sum(s.nbytes for s in shapes)


def _moved(program: Program, where: str, i: Instruction) -> int:
    local = program.named(where)
    operands = [local[o] for o in i.operands if o in local]
    if i.opcode == "dynamic-slice":
        return 2 * _bytes(i)
    if i.opcode == "dynamic-update-slice":
        return 2 * _bytes(operands[1])
    if i.opcode.startswith("copy-start"):
        return sum(s.nbytes for s in i.shapes[:2] if not s.fast)
    if i.opcode != "fusion":
        return _bytes(i) + sum(map(_bytes, operands))
    inside = i.called()["calls"][0]
    read = sum(
        min(_bytes(operands[n]), _read(program, inside, n))
        for n in range(len(operands))
    )
    return read + sum(_written(program, inside, i.shapes))


def _read(program: Program, computation: str, number: int) -> int:
    """Of an operand of a fusion that is only sliced, the slices; of one that is updated
    in place, nothing; else all of it."""
    instructions = program.computations[computation]
    todo = [
        i
        for i in instructions
        if i.opcode == "parameter" and i.rest.startswith(f"{number})")
    ]
    whole, total = sum(s.nbytes for s in todo[0].shapes), 0
    while todo:
        source = todo.pop()
        for user in program.users(computation)[source.name]:
            if user.opcode == "dynamic-slice":
                total += sum(s.nbytes for s in user.shapes)
            elif (
                user.opcode == "dynamic-update-slice"
                and user.operands[0] == source.name
            ):
                continue
            elif user.opcode == "bitcast":
                todo.append(user)
            elif user.opcode == "fusion":
                callee = user.called()["calls"][0]
                total += _read(program, callee, user.operands.index(source.name))
            else:
                return whole
    return min(total, whole)


def _written(
    program: Program, computation: str, shapes: tuple[Shape, ...]
) -> list[int]:
    """Bytes of each result of a fusion: of an update in place, the update."""
    names = program.named(computation)

    def one(result: Instruction, shape: Shape) -> int:
        while result.opcode == "bitcast":
            result = names[result.operands[0]]
        if result.opcode == "dynamic-update-slice":
            return sum(s.nbytes for s in names[result.operands[1]].shapes)
        if result.opcode == "fusion" and len(result.shapes) == 1:
            return _written(program, result.called()["calls"][0], (shape,))[0]
        return 0 if shape.fast else shape.nbytes

    root = next(i for i in names.values() if i.root)
    results = [names[o] for o in root.operands] if root.opcode == "tuple" else [root]
    return [one(r, s) for r, s in zip(results, shapes, strict=False)]
