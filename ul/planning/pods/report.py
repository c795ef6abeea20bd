"""Format pod plans as Markdown tables, with the assumption behind each figure beside it."""

from ul.core import markdown
from ul.planning.pods import chips, collectives, model_flops
from ul.planning.pods.compile import GIB, PodPlan


def format_plan(plan: PodPlan, encoder_flops: float = 0.0) -> str:
    """Return the table of one plan, with one quantity per row.

    encoder_flops: of encoding the images of a step, which is not part of the train step.
    """
    rows = [["", "", "basis and assumptions"]]
    rows += _size_rows(plan) + _memory_rows(plan) + _flops_rows(plan)
    if plan.step is not None:
        rows += _collectives_rows(plan) + _time_rows(plan)
    if encoder_flops:
        text = "; `ul encode` saves it"
        rows.append(_frozen_row(plan, "online encoder", encoder_flops, text))
    if plan.spec.stage.distillation is not None:
        flops = plan.spec.batch_size * model_flops.target_flops(plan.spec.stage)
        text = "; the teacher's parameters are not part of the memory above"
        rows.append(_frozen_row(plan, "targets of the teacher", flops, text))
    level = f"on this machine, at optimization level {plan.topology.optimization_level}"
    rows.append(["compile", f"{plan.compile_seconds:.0f} s", level])
    return markdown.table(rows)


def _size_rows(plan: PodPlan) -> list[list[str]]:
    (data, fsdp), batch = plan.spec.mesh_axes, plan.spec.batch_size
    chip = plan.topology.chip.name if plan.topology.chip else "virtual CPU device"
    step = "one train step"
    if plan.spec.stage.uses_stage1:
        step = "one train step on latents, without encoding the images"
    return [
        ["topology", _topology_text(plan), f"{plan.num_chips} x {chip}"],
        [
            "mesh",
            f"data={data} x fsdp={fsdp}",
            f"remat {remat_policies(plan)}",
        ],
        ["parameters", f"{plan.num_parameters / 1e6:.1f}M", plan.spec.dtype],
        ["batch", f"{batch} ({batch / plan.num_chips:g} per chip)", step],
    ]


def _topology_text(plan: PodPlan) -> str:
    slices = plan.topology.slices
    return (
        f"{slices} slices of {plan.topology.name}" if slices > 1 else plan.topology.name
    )


def remat_policies(plan: PodPlan) -> str:
    """Return the remat policies of the networks, each one once."""
    return "/".join(dict.fromkeys(plan.spec.remat.values()))


def memory_verdict(plan: PodPlan) -> str:
    """Return whether the step fits into a chip's memory, and what is missing if not."""
    if plan.missing_bytes:
        return f"does not fit, {plan.missing_bytes / GIB:.2f} GiB missing"
    return "fits" if plan.topology.chip else "unknown"


def _memory_rows(plan: PodPlan) -> list[list[str]]:
    chip, step = plan.topology.chip, plan.step
    limit = f"of {chip.memory_gib} GiB per chip" if chip else "of this machine's memory"
    rows = [
        ["**memory**", f"**{memory_verdict(plan)}**", "according to the compiler"],
        ["needed", format_gib(plan.peak_bytes), limit],
    ]
    if step is not None:
        arguments, temporaries = step.argument_bytes, step.temporary_bytes
        rows += [
            ["arguments", format_gib(arguments), "train state and batch, per chip"],
            ["temporaries", format_gib(temporaries), "including fragmentation"],
        ]
    return rows


def _flops_rows(plan: PodPlan) -> list[list[str]]:
    batch = plan.spec.batch_size
    deviation = plan.model_flops / plan.closed_form_flops - 1
    ratio = plan.computed_flops / plan.model_flops
    return [
        [
            "model FLOPs per step",
            format_flops(plan.model_flops),
            "matrix products and convolutions of the gradient, no remat; 1 MAC = 2 FLOP",
        ],
        ["per image", format_flops(plan.model_flops / batch), "the same"],
        [
            "closed form per image",
            format_flops(plan.closed_form_flops / batch),
            f"from the sizes of the networks; the count differs by {deviation:+.3%}",
        ],
        [
            "computed FLOPs per step",
            format_flops(plan.computed_flops),
            f"including remat: {ratio:.2f} times the model FLOPs",
        ],
    ]


def _collectives_rows(plan: PodPlan) -> list[list[str]]:
    step = plan.step
    assert step is not None
    rows = []
    for kind in collectives.KINDS:
        sent, minimum = step.sent_bytes[kind], plan.minimum_sent_bytes[kind]
        if sent or minimum:
            count = f"{step.num_collectives[kind]} per step"
            rows.append(
                [kind, format_mb(sent), f"{count}; at least {format_mb(minimum)}"]
            )
    sent = sum(step.sent_bytes.values())
    minimum = sum(plan.minimum_sent_bytes.values())
    ratio = f" ({sent / minimum:.2f} times)" if minimum else ""
    rows.append(
        [
            "sent per chip and step",
            format_mb(sent),
            f"counted in the HLO; at least {format_mb(minimum)}{ratio}: parameters "
            "gathered twice, gradients scattered once",
        ]
    )
    gathered = step.gathered_activations
    rows.append(
        [
            "activations gathered",
            str(len(gathered)) if gathered else "no",
            "; ".join(gathered[:2]) or "only parameters are gathered",
        ]
    )
    if plan.topology.slices > 1:
        across = step.gathered_across_slices
        rows += [
            [
                "sent to other slices",
                format_mb(step.network_bytes),
                f"per chip and step; at least {format_mb(plan.minimum_network_bytes)}: "
                "gradients reduced once",
            ],
            [
                "gathered across slices",
                str(len(across)) if across else "no",
                "; ".join(across[:2]) or "fsdp stays within a slice",
            ],
        ]
    return rows


def _time_rows(plan: PodPlan) -> list[list[str]]:
    chip, time, step = plan.topology.chip, plan.step_time, plan.step
    if chip is None or time is None or step is None:
        return [["step time", "unknown", "no data sheet for this device"]]
    egress = chips.egress_bandwidth(chip, plan.topology.sides)
    hours = plan.spec.steps * time.step / 3600
    utilization = plan.model_flops / plan.num_chips / time.step / chip.flops
    return [
        [
            "compute",
            format_ms(time.compute),
            f"at the peak of {chip.flops / 1e12:.0f} TFLOP/s",
        ],
        [
            "memory",
            format_ms(time.memory),
            f"{step.traffic_bytes / 1e9:.3g} GB moved, counted in the HLO, at "
            f"{chip.memory_bandwidth / 1e9:.0f} GB/s",
        ],
        [
            "vector units",
            format_ms(time.vector),
            f"{step.vector_operations / 1e9:.3g} G elementwise operations, counted in the "
            f"HLO, at {chip.vector_rate / 1e12:.3g} T/s; not those of kernels",
        ],
        [
            "interconnect",
            format_ms(time.interconnect),
            f"{egress / 1e9:.0f} GB/s per chip: all links, one direction each",
        ],
        *(
            [
                [
                    "network",
                    format_ms(time.network),
                    f"between slices, {chip.network_bandwidth / 1e9:.3g} GB/s per chip",
                ]
            ]
            if plan.topology.slices > 1
            else []
        ),
        [
            "**step, at best**",
            f"**{format_ms(time.step)}**",
            f"the slowest of these; without overlap {format_ms(time.without_overlap)}",
        ],
        [
            "images/s, at best",
            f"{plan.images_per_second:.0f}",
            f"{utilization:.0%} of the peak in model FLOPs",
        ],
        [
            "**whole run, at best**",
            f"**{hours * plan.num_chips:,.0f} chip-hours**",
            f"{plan.spec.steps:,} steps in {hours:.1f} h; without overlap "
            f"{hours * time.without_overlap / time.step:.1f} h",
        ],
    ]


def _frozen_row(plan: PodPlan, name: str, flops: float, more: str) -> list[str]:
    chip, text = plan.topology.chip, f"{format_flops(flops)} per step"
    time = format_ms(flops / plan.num_chips / chip.flops) if chip else "unknown"
    text += f" at the peak, before the train step and not compiled here{more}"
    return [name, time, text]


SEARCH_HEADER = (
    "batch per chip", "remat", "mesh", "memory", "needed", "computed/model", "sent",
    "compute", "HBM", "vector", "links", "network", "step", "images/s", "compile",
)  # fmt: skip


def search_row(plan: PodPlan) -> list[str]:
    """Return the cells of one plan in the table of a search."""
    (data, fsdp), time = plan.spec.mesh_axes, plan.step_time
    cells = [
        f"{plan.spec.batch_size / plan.num_chips:g}",
        remat_policies(plan),
        f"data={data},fsdp={fsdp}",
        memory_verdict(plan),
        format_gib(plan.peak_bytes),
        f"{plan.computed_flops / plan.model_flops:.2f}",
        format_mb(sum(plan.step.sent_bytes.values())) if plan.step else "",
    ]
    if time is None:
        times = [""] * 6
    else:
        seconds = (
            time.compute,
            time.memory,
            time.vector,
            time.interconnect,
            time.network,
            time.step,
        )
        times = [format_ms(s) for s in seconds]
    rate = f"{plan.images_per_second:.0f}" if plan.images_per_second else ""
    return [*cells, *times, rate, f"{plan.compile_seconds:.0f} s"]


def format_gib(nbytes: float) -> str:
    """Format bytes in GiB."""
    return f"{nbytes / GIB:.2f} GiB"


def format_mb(nbytes: float) -> str:
    """Format bytes in MB."""
    return f"{nbytes / 1e6:.1f} MB"


def format_ms(seconds: float) -> str:
    """Format seconds in milliseconds."""
    return f"{seconds * 1e3:.3g} ms"


def format_flops(count: float) -> str:
    """Format FLOPs with a unit from MFLOP to PFLOP."""
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if count >= scale:
            return f"{count / scale:.4g} {unit}FLOP"
    return f"{count / 1e6:.4g} MFLOP"
