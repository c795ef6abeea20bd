"""What training costs: a trial's so far, a config's per image, and the published."""

from ul.config import TrainConfig
from ul.core.errors import UserError
from ul.planning.pods import model_flops
from ul.planning.pods.report import table
from ul.sweeps.report import published
from ul.sweeps.report.rows import Cost, Record, Stage, Trial

CONVENTION = (
    "Training FLOPs: multiply-adds of all linear layers, convolutions and attention "
    "products in closed form (ul/planning/pods/closed_form.py), 1 MAC = 2 FLOP; forward and "
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
        return float(model_flops.closed(stage.parsed).training) * (
            stage.parsed.batch_size * steps
        )
    except UserError:  # networks that today's code does not build
        return None


def per_image(config: TrainConfig) -> str:
    """Markdown: what one image costs in each network of a config, in both conventions."""
    found, sizes = model_flops.networks(config), model_flops.parameters(config)
    whole = sum(found.values(), model_flops.Count(0))
    rows = [["network", "parameters", "GMAC", "GFLOP", "training, GFLOP"]]
    for name, cost in [*found.items(), ("all", whole)]:
        size = sum(sizes.values()) if name == "all" else sizes[name]
        both = [f"{cost.forward / unit:,.4g}" for unit in (2e9, 1e9)]
        trained = f"{cost.training / 1e9:,.4g}"
        rows.append([name, f"{size / 1e6:.1f}M", *both, trained])
    return table(rows)


def beside() -> str:
    """Markdown: what published generators took, and their FIDs; each with its source."""
    head = ["published", "GMAC", "GFLOP", "images seen, M", "training, ZFLOP"]
    rows = [[*head, "FID", "guided", "source"]]
    for name in dict.fromkeys(p.name for p in published.POINTS):
        both = [p for p in published.POINTS if p.name == name]
        fids = [[f"{p.fid:g}" for p in both if p.guided is g] for g in (False, True)]
        p = both[0]
        macs = [f"{p.gmacs:g}", f"{2 * p.gmacs:g}"] if p.gmacs else ["", ""]
        seen = f"{p.images:g}" if p.images else ""
        cost = f"{p.training_flops / 1e21:.2f}" if p.training_flops else ""
        rows.append([name, *macs, seen, cost, *(" ".join(f) for f in fids), p.source])
    return table(rows)


def _sum(costs: list[float | None]) -> float | None:
    known = [c for c in costs if c is not None]
    return sum(known) if known else None
