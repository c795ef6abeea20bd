"""One training session in a workdir: from a config to a trained, committed state."""

import dataclasses
import functools
import logging

from ul import api, build, config, runs
from ul.core.errors import ConfigError
from ul.train import curves, loop, signals, workdir
from ul.train.checkpoint import Checkpoints
from ul.train.writer import Writer

log = logging.getLogger("ul")


def build_run(parsed: config.Common, facts: dict) -> tuple[loop.Run, dict]:
    """The run of a config, and what to remember of the stage 1 below it.

    `facts`: what the workdir remembers. A run that began on one step of stage 1 stays
    on it, though stage 1 trained on.

    Raises:
      ConfigError, CheckpointError: no stage 1 there, or one that does not fit.
    """
    if isinstance(parsed, config.Autoencoder):
        return runs.stage1_run(parsed), {}
    if isinstance(parsed, config.Pixels):
        return runs.base_run(parsed, build.pixel_codec(parsed), {}), {}
    assert isinstance(parsed, config.Base)
    below = parsed.stage1
    if not below.workdir:
        raise ConfigError("--config.stage1.workdir is missing; give stage 1's workdir")
    build.check_stage1(parsed, api.load_config_of(below.workdir, config.Autoencoder))
    ae = api.restore_stage1(
        below.workdir,
        ("encoder", "decoder"),
        step=below.step or facts.get("stage1", {}).get("step"),
        weights=below.weights,
        mesh=runs.mesh(parsed),
    )
    log.info("stage 1: %s step %d, weights %s", below.workdir, ae.step, ae.weights)
    facts = {"stage1": ae.identity(below.workdir)}
    return runs.base_run(parsed, ae.codec, ae.params), facts


def train(
    parsed: config.Common, where: str, *, profile: tuple[int, int] = (0, 0)
) -> None:
    """Train in the directory `where`, or go on there. `profile`: steps to trace.

    Raises:
      UserError: of the kind that its exit code says; what was saved stays.
    """
    plain = dataclasses.asdict(parsed)
    with workdir.locked(where) as path:
        trace = loop.Profile(path, *profile)
        run, facts = build_run(parsed, workdir.remembered(path))
        workdir.claim(path, plain, facts | {"mesh": dict(run.mesh.shape)})
        kept, log_to = parsed.checkpoint, parsed.log
        writer = functools.partial(
            Writer,
            path,
            tensorboard=log_to.tensorboard,
            wandb=log_to.wandb,
            config=plain,
        )
        checkpoints = Checkpoints(
            path,
            keep=kept.keep,
            keep_every=kept.keep_every,
            keep_minutes=kept.keep_minutes,
        )
        try:
            with signals.stop_on_signal() as stop:
                loop.train(run, checkpoints, writer, stop, trace)
        finally:
            trace.close()
            checkpoints.close()
        curves.draw(path)
