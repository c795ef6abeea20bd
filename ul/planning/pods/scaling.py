"""Predict how a step scales to several slices, from its plan on one."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from ul.core import markdown
from ul.planning.pods import chips, report
from ul.planning.pods.compile import PodPlan
from ul.planning.pods.roofline import StepTime


def gradient_bytes(plan: PodPlan) -> int:
    """Return the bytes of one gradient, which is reduced in the type of the networks."""
    return jnp.dtype(plan.spec.dtype).itemsize


def step_time_on(plan: PodPlan, slices: int) -> StepTime:
    """Return the time of a step on `slices` slices, each with the batch of the plan.

    Within a slice nothing changes. The slices reduce the gradients, of which each chip
    holds its share, by a ring: 2 (S - 1) / S of them are sent, for each microbatch.
    """
    assert plan.step_time is not None and plan.topology.chip is not None
    share = plan.num_parameters * gradient_bytes(plan) / plan.num_chips
    sent = 2 * (slices - 1) / slices * share * plan.spec.accumulate
    network = sent / plan.topology.chip.network_bandwidth
    return dataclasses.replace(plan.step_time, network=network)


def scaling_table(plan: PodPlan, counts: Sequence[int]) -> str:
    """Return a Markdown table of the speed on each number of slices."""
    rows = [
        ["slices", "chips", "batch", "network", "images/s, at best", "without overlap"]
        + ["efficiency"]
    ]
    alone = step_time_on(plan, 1).without_overlap
    for slices in counts:
        time, batch = step_time_on(plan, slices), plan.spec.batch_size * slices
        rows.append(
            [
                str(slices),
                str(plan.num_chips * slices),
                str(batch),
                report.format_ms(time.network),
                f"{batch / time.step:,.0f}",
                f"{batch / time.without_overlap:,.0f}",
                f"{alone / time.without_overlap:.1%}",
            ]
        )
    return markdown.table(rows, align_right=True)


def assumptions(plan: PodPlan) -> str:
    """Return what the table assumes, one sentence per line."""
    chip = plan.topology.chip
    assert chip is not None
    (data, fsdp), batch = plan.spec.mesh_axes, plan.spec.batch_size
    egress = chips.egress_bandwidth(chip, plan.topology.sides) / 1e9
    return "\n".join(
        [
            f"Each slice is {plan.topology.name} with data={data} x fsdp={fsdp} and a batch of "
            f"{batch}; the step of one slice was compiled.",
            f"The network carries {chip.network_bandwidth / 1e9:.3g} GB/s per chip in each "
            f"direction (links within a slice: {egress:.0f}), whatever the number of slices.",
            "Gradients are reduced within a slice first; between slices each chip sends "
            f"2 (S - 1) / S of its share, {gradient_bytes(plan)} bytes per parameter, for each "
            f"of {plan.spec.accumulate} microbatches.",
            "Efficiency assumes no overlap. With overlap the network costs time only if it is "
            "the slowest resource.",
            "The table ignores that a larger batch may need another learning rate and more "
            "examples.",
        ]
    )
