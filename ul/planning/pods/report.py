"""Plans as Markdown, with what each figure assumes beside it."""

from collections.abc import Sequence

from ul.config import Stage1Config
from ul.planning.pods import chips, collectives, model_flops
from ul.planning.pods.compile import GIB, Plan


def table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def one(plan: Plan) -> str:
    """All of one plan, a quantity a row."""
    rows = [["", "", "how, and what is assumed"]]
    rows += _size(plan) + _memory(plan) + _flops(plan)
    if plan.program is not None:
        rows += _collectives(plan) + _time(plan)
    effort = f"on this machine, at effort {plan.topology.effort:g}"
    rows.append(["compile", f"{plan.seconds:.0f} s", effort])
    return table(rows)


def _size(plan: Plan) -> list[list[str]]:
    mesh, batch = plan.config.mesh, plan.config.batch_size
    chip = plan.topology.chip.name if plan.topology.chip else "virtual CPU device"
    step = "a step"
    if not isinstance(plan.config, Stage1Config):
        step = "a step on latents; encoding them is not in it"
    if plan.topology.options:  # a GPU's
        step += "; XLA's attention, which holds what cuDNN's does not"
    return [
        ["topology", plan.topology.name, f"{plan.chips} x {chip}"],
        ["mesh", f"data={mesh.data} x fsdp={mesh.fsdp}", f"remat {remat(plan)}"],
        ["parameters", f"{plan.parameters / 1e6:.1f}M", plan.config.dtype],
        ["batch", f"{batch} ({batch / plan.chips:g} a chip)", step],
    ]


def remat(plan: Plan) -> str:
    """The policies of the networks, once each."""
    found = [
        getattr(plan.config, n)["remat"]
        for n in model_flops.NETWORKS
        if hasattr(plan.config, n)
    ]
    return "/".join(dict.fromkeys(found))


def verdict(plan: Plan) -> str:
    if plan.missing:
        return f"does not fit, {plan.missing / GIB:.2f} GiB missing"
    return "fits" if plan.topology.chip else "unknown"


def _memory(plan: Plan) -> list[list[str]]:
    chip = plan.topology.chip
    against = f"of {chip.memory_gib} GiB a chip" if chip else "of this machine's memory"
    rows = [
        ["**memory**", f"**{verdict(plan)}**", "says the compiler"],
        ["needed", gib(plan.peak), against],
    ]
    if plan.program is not None:
        rows += [
            ["arguments", gib(plan.program.arguments), "state and batch, a chip"],
            ["temporaries", gib(plan.program.temporaries), "with fragmentation"],
        ]
    return rows


def _flops(plan: Plan) -> list[list[str]]:
    batch = plan.config.batch_size
    off = plan.model_flops / plan.closed_flops - 1
    return [
        [
            "model FLOPs a step",
            flops(plan.model_flops),
            "the gradient's products and convolutions, no remat; 1 MAC = 2",
        ],
        ["an image", flops(plan.model_flops / batch), "the same"],
        [
            "closed form an image",
            flops(plan.closed_flops / batch),
            f"from the settings; the count is {off:+.3%} off",
        ],
        [
            "computed a step",
            flops(plan.run_flops),
            f"with remat: {plan.run_flops / plan.model_flops:.2f} times the model's",
        ],
    ]


def _collectives(plan: Plan) -> list[list[str]]:
    program = plan.program
    assert program is not None
    rows = []
    for kind in collectives.KINDS:
        sent, least = program.sent[kind], plan.least[kind]
        if sent or least:
            times = program.operations[kind]
            rows.append([kind, mb(sent), f"{times} a step; at least {mb(least)}"])
    total, least = sum(program.sent.values()), sum(plan.least.values())
    ratio = f" ({total / least:.2f} times)" if least else ""
    rows.append(
        [
            "sent a chip and step",
            mb(total),
            f"by the HLO; at least {mb(least)}{ratio}: gathers twice, scatters once",
        ]
    )
    gathered = program.gathered_activations
    said = "; ".join(gathered[:2]) or "each gather is of a parameter"
    rows.append(
        ["activations gathered", str(len(gathered)) if gathered else "no", said]
    )
    return rows


def _time(plan: Plan) -> list[list[str]]:
    chip, times, program = plan.topology.chip, plan.estimate, plan.program
    if chip is None or times is None or program is None:
        return [["step time", "unknown", "no data sheet of this device"]]
    egress = chips.egress(chip, plan.topology.sides)
    rate = plan.model_flops / plan.chips / times.step / chip.flops
    return [
        ["compute", ms(times.compute), f"{chip.flops / 1e12:.0f} TFLOP/s, all of it"],
        [
            "memory",
            ms(times.memory),
            f"{program.traffic / 1e9:.3g} GB moved, by the HLO, at "
            f"{chip.memory_bandwidth / 1e9:.0f} GB/s",
        ],
        [
            "interconnect",
            ms(times.interconnect),
            f"{egress / 1e9:.0f} GB/s a chip: all its links, one way each",
        ],
        [
            "**step, at best**",
            f"**{ms(times.step)}**",
            f"the slowest of the three; one after the other {ms(times.in_turn)}",
        ],
        [
            "images/s, at best",
            f"{plan.images_per_second:.0f}",
            f"{rate:.0%} of the peak in model FLOPs",
        ],
    ]


HEAD = (
    "batch a chip", "remat", "mesh", "memory", "needed", "computed/model", "sent",
    "compute", "HBM", "network", "step", "images/s", "compile",
)  # fmt: skip


def row(plan: Plan) -> list[str]:
    """One plan of a search."""
    mesh, times = plan.config.mesh, plan.estimate
    shown = [
        f"{plan.config.batch_size / plan.chips:g}",
        remat(plan),
        f"data={mesh.data},fsdp={mesh.fsdp}",
        verdict(plan),
        gib(plan.peak),
        f"{plan.run_flops / plan.model_flops:.2f}",
        mb(sum(plan.program.sent.values())) if plan.program else "",
    ]
    if times is None:
        return [*shown, "", "", "", "", "", f"{plan.seconds:.0f} s"]
    parts = (times.compute, times.memory, times.interconnect, times.step)
    return [
        *shown,
        *map(ms, parts),
        f"{plan.images_per_second:.0f}" if plan.images_per_second else "",
        f"{plan.seconds:.0f} s",
    ]


def gib(nbytes: float) -> str:
    return f"{nbytes / GIB:.2f} GiB"


def mb(nbytes: float) -> str:
    return f"{nbytes / 1e6:.1f} MB"


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def flops(number: float) -> str:
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= scale:
            return f"{number / scale:.4g} {unit}FLOP"
    return f"{number / 1e6:.4g} MFLOP"
