"""Log at the start of a run what it reads, what to expect of it, and likely mistakes."""

import logging
from typing import Any

from ul.config import TrainConfig
from ul.data import summary
from ul.runs import assemble, latent_statistics
from ul.train import loop

log = logging.getLogger("ul")


def log_changed_steps(saved: dict[str, Any], config: TrainConfig, newest: int) -> None:
    """Log what another number of steps does to the learning rate of a resumed run."""
    steps = saved.get("steps", config.steps)
    if not newest or steps == config.steps:
        return
    before, after = (
        float(assemble.learning_rate(config, steps=n)(newest))
        for n in (steps, config.steps)
    )
    log.warning(
        "steps changed from %d to %d, and with it the schedule of the learning rate: it was "
        "%.3g at step %d and goes on at %.3g",
        steps,
        config.steps,
        before,
        newest,
        after,
    )


def log_expectations(run: loop.Run, provenance: dict, config: TrainConfig) -> None:
    """Log the planned rate of a stage 1, or the scale of the latents of a stage 2.

    It warns if the run ends before the prior has its whole weight.
    """
    if "latents" in provenance:
        latent_statistics.report(provenance["latents"])
    if run.planned_rate_bpp is not None:
        log.info("the plan predicts %.3f bits/pixel", run.planned_rate_bpp)
    loss = getattr(config, "loss", None)
    ramp_steps = getattr(loss, "ramp_steps", 0)
    if ramp_steps > config.steps:
        log.warning(
            "loss.ramp_steps %d is more than steps %d, so the prior never acts on the encoder "
            "with its whole weight and the rate is not the planned one",
            ramp_steps,
            config.steps,
        )


def log_dataset(report: dict[str, Any], config: TrainConfig) -> None:
    """Log what the data hold, and warn of what is probably a mistake."""
    for line in summary.lines(report):
        log.info("%s", line)
    for warning in summary.warnings(report, config.data.num_classes):
        log.warning("%s", warning)
