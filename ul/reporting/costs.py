"""What training a trial has cost so far, counted from its configs alone."""

from ul.core.errors import UserError
from ul.pods import count
from ul.reporting.rows import Cost, Record, Stage, Trial

CONVENTION = (
    "Training FLOPs: multiply-adds of all linear layers, convolutions and attention "
    "products in closed form (ul/pods/closed_form.py), 1 MAC = 2 FLOP; forward and "
    "backward, i.e. three times the forward pass (twice for layers that see only data), "
    "times batch size, times the steps trained so far. Stage 2 is the base model alone: "
    "the frozen encoder's forward passes are not counted, nor is evaluation."
)


def training(trial: Trial, record: Record | None = None) -> Cost:
    """Up to each stage's newest step, but of the stage that has this record up to the
    record's; None where a stage is not there or unreadable."""
    one: list[float | None] = []
    two: list[float | None] = []
    for stage in trial.stages:
        evaluated = record is not None and record in stage.records
        steps = record.numbers["step"] if record and evaluated else stage.trained
        (two if stage.on_latents else one).append(_flops(stage, steps))
    return Cost(_sum(one), _sum(two))


def _flops(stage: Stage, steps: int) -> float | None:
    if stage.parsed is None or not steps:
        return None
    try:
        return float(count.closed(stage.parsed).training) * (
            stage.parsed.batch_size * steps
        )
    except UserError:  # networks that today's code does not build
        return None


def _sum(costs: list[float | None]) -> float | None:
    known = [c for c in costs if c is not None]
    return sum(known) if known else None
