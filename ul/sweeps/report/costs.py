"""Training costs: of a trial, of each network of a config, and of published models."""

from ul.core import markdown
from ul.core.errors import UserError
from ul.planning.pods import model_flops
from ul.planning.pods.closed_form import FlopCount
from ul.stages.stage import Stage
from ul.sweeps.report import published
from ul.sweeps.report.rows import (
    EvaluationRecord,
    StageRun,
    TrainingCost,
    TrialResult,
)

CONVENTION = (
    "Training FLOPs count the multiply-adds of all linear layers, convolutions and "
    "attention products in closed form (ul/planning/pods/closed_form.py) with 1 MAC = "
    "2 FLOP. Forward and backward pass together cost three times the forward pass, or twice "
    "in layers whose input is data. This is multiplied by the batch size and the steps "
    "trained so far. Stage 2 is the base model alone: the forward passes of the frozen "
    "encoder are not counted, and neither are evaluations."
)


def training_cost(
    trial: TrialResult, record: EvaluationRecord | None = None
) -> TrainingCost:
    """Return the training FLOPs of a trial's stages up to their newest steps.

    With `record`, the stage that it evaluates counts only up to the evaluated step. A
    stage that does not exist, or whose config cannot be read, is None.
    """
    stage1: list[float | None] = []
    stage2: list[float | None] = []
    for stage in trial.stages:
        is_evaluated = record is not None and record in stage.records
        steps = (
            record.fields["step"] if record and is_evaluated else stage.trained_steps
        )
        (stage2 if stage.is_stage2 else stage1).append(_training_flops(stage, steps))
    return TrainingCost(_sum_known(stage1), _sum_known(stage2))


def _training_flops(stage: StageRun, steps: int) -> float | None:
    if stage.stage is None or not steps:
        return None
    try:
        per_example = float(model_flops.closed_form_flops(stage.stage).training)
    except UserError:  # an older config whose networks this code cannot build
        return None
    return per_example * (stage.batch_size * steps)


def _sum_known(costs: list[float | None]) -> float | None:
    known = [c for c in costs if c is not None]
    return sum(known) if known else None


def network_table(stage: Stage) -> str:
    """Return a Markdown table of parameters and FLOPs per image of a stage's networks.

    The forward pass is given in both conventions, GMAC and GFLOP.
    """
    counts = model_flops.flops_by_network(stage)
    sizes = model_flops.parameters_by_network(stage)
    counts = counts | {"all": sum(counts.values(), FlopCount(0))}
    sizes = sizes | {"all": sum(sizes.values())}
    rows = [["network", "parameters", "GMAC", "GFLOP", "training, GFLOP"]]
    for name, count in counts.items():
        forward = [f"{count.forward / unit:,.4g}" for unit in (2e9, 1e9)]
        training = f"{count.training / 1e9:,.4g}"
        rows.append([name, f"{sizes[name] / 1e6:.1f}M", *forward, training])
    return markdown.table(rows)


def published_table() -> str:
    """Return a Markdown table of published generators: cost, FID and source."""
    header = ["published", "GMAC", "GFLOP", "images seen, M", "training, ZFLOP"]
    rows = [[*header, "FID", "guided FID", "source"]]
    for name in dict.fromkeys(r.name for r in published.RESULTS):
        results = [r for r in published.RESULTS if r.name == name]
        fids = [
            " ".join(f"{r.fid:g}" for r in results if r.guided is guided)
            for guided in (False, True)
        ]
        model = results[0]
        costs = [
            f"{model.gmacs:g}" if model.gmacs else "",
            f"{2 * model.gmacs:g}" if model.gmacs else "",
            f"{model.million_images:g}" if model.million_images else "",
            f"{model.training_flops / 1e21:.2f}" if model.training_flops else "",
        ]
        rows.append([name, *costs, *fids, model.source])
    return markdown.table(rows)
