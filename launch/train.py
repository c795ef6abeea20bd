"""Train a stage; run the same command again to resume.

    python -m launch.train --config experiments/digits.py:stage1 --workdir runs/s1
    python -m launch.train --config experiments/digits.py:stage2 --workdir runs/s2 \\
        --config.stage1.workdir=runs/s1
"""

import dataclasses
import functools
import logging

from absl import flags

from launch import cli
from ul import api, build, config, runs
from ul.core.errors import ConfigError
from ul.train import curves, loop, signals, workdir
from ul.train.checkpoint import Checkpoints
from ul.train.writer import Writer

log = logging.getLogger("ul")

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")
_PROFILE = flags.DEFINE_string("profile_steps", "0:0", "Trace the steps first:last.")


def _profile_range() -> tuple[int, int]:
    first, _, last = _PROFILE.value.partition(":")
    if first.isdigit() and last.isdigit():
        return int(first), int(last)
    raise ConfigError(f"--profile_steps is {_PROFILE.value!r}, not first:last as 10:13")


def _build(parsed: config.Joint | config.Base, facts: dict) -> tuple[loop.Run, dict]:
    """The run, and what to remember of the stage 1 below it.

    A run that began on one step of stage 1 stays on it, though stage 1 trained on.
    """
    if isinstance(parsed, config.Joint):
        return runs.joint_run(parsed), {}
    below = parsed.stage1
    if not below.workdir:
        raise ConfigError("--config.stage1.workdir is missing; give stage 1's workdir")
    build.check_stage1(parsed, api.load_config_of(below.workdir, config.Joint))
    step = below.step or facts.get("stage1", {}).get("step")
    ae = api.restore_stage1(
        below.workdir,
        ("encoder", "decoder"),
        step=step,
        weights=below.weights,
        mesh=runs.mesh(parsed),
    )
    log.info("stage 1: %s step %d, weights %s", below.workdir, ae.step, ae.weights)
    return runs.base_run(parsed, ae.codec, ae.params), {
        "stage1": ae.identity(below.workdir)
    }


def main() -> None:
    parsed, first_last = _CONFIG(), _profile_range()
    plain = dataclasses.asdict(parsed)
    with workdir.locked(cli.required(_WORKDIR)) as path:
        run, facts = _build(parsed, workdir.remembered(path))
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
                loop.train(
                    run, checkpoints, writer, stop, loop.Profile(path, *first_last)
                )
        finally:
            checkpoints.close()
        curves.draw(path)


if __name__ == "__main__":
    cli.run(main)
