"""One training session in a workdir: from a config to a trained, committed state."""

import contextlib
import dataclasses
import functools
import logging

import jax
from etils import epath

from ul.inference import api
from ul.stages import registry
from ul.runs import latent_cache, assemble
from ul import config
from ul.core import memory, processes
from ul.core.errors import ConfigError
from ul.train import curves, loop
from ul.checkpoints import workdir
from ul.checkpoints.store import Checkpoints, verified_steps
from ul.train.guard import Guard
from ul.train.writer import Silent, Writer

log = logging.getLogger("ul")


def build_run(parsed: config.TrainConfig, provenance: dict) -> tuple[loop.Run, dict]:
    """The run of a config, and what to remember of the stage 1 below it.

    `provenance`: what the workdir remembers. A run that began on one step of stage 1 stays
    on it, though stage 1 trained on.

    Raises:
      ConfigError, CheckpointError: no stage 1 there, or one that does not fit.
    """
    if isinstance(parsed, config.Stage1Config):
        return assemble.stage1_run(parsed), {}
    if isinstance(parsed, config.PixelDiffusionConfig):
        return assemble.base_run(parsed, registry.pixel_codec(parsed), {}), {}
    assert isinstance(parsed, config.Stage2Config)
    ae, below = api.restore_below(
        parsed,
        ("encoder", "decoder"),
        step=provenance.get("stage1", {}).get("step"),
        mesh=assemble.mesh(parsed),
    )
    if parsed.latent_cache is None:
        return assemble.base_run(parsed, ae.codec, ae.params), {"stage1": below}
    wanted = latent_cache.identity(parsed, ae.codec, below)
    cache = latent_cache.opened(parsed, wanted, provenance.get("latent_cache", {}))
    log.info("latents: %s, %s", parsed.latent_cache, parsed.latent_dtype)
    frozen = {"decoder": ae.params["decoder"]}  # the encoder has done its part
    run = assemble.base_run(parsed, ae.codec, frozen, cache)
    return run, {"stage1": below, "latent_cache": cache.provenance}


def train(
    parsed: config.TrainConfig,
    where: str,
    *,
    profile: tuple[int, int] = (0, 0),
    max_attempts: int = 0,
    allow_changes: bool = False,
) -> None:
    """Train in the directory `where`, or go on there. `profile`: steps to trace.

    Every process of the run calls this; process 0 alone holds and writes the directory.

    Raises:
      UserError: of the kind that its exit code says; what was saved stays.
    """
    with contextlib.ExitStack() as held:
        guard = held.enter_context(Guard(where, dataclasses.asdict(parsed.watchdog)))
        if jax.default_backend() == "cpu":
            memory.keep_freed()
        # A barrier that gives up names who is missing: it does so before the watchdog.
        seconds = parsed.watchdog.start / 2.0

        def first(name, fn):
            return processes.from_first(name, fn, seconds)

        # The directory is ours before anything in it is read.
        first("workdir", lambda: held.enter_context(workdir.locked(where)) and None)
        path = epath.Path(where)
        trace = loop.Profile(path, *profile)
        known = first("remembered", lambda: workdir.remembered(path))
        run, provenance = processes.agree("build", lambda: build_run(parsed, known), seconds)
        provenance |= about(run)
        plain = dataclasses.asdict(parsed)
        check_alike(plain, run.data, seconds)

        def begin():
            workdir.claim(path, plain, provenance, allow=allow_changes)
            newest = max(verified_steps(path), default=0)
            workdir.count_attempt(path, newest, max_attempts)

        first("claim", begin)
        checkpoints = open_checkpoints(path, parsed.checkpoint)
        held.callback(trace.close)
        held.push(functools.partial(_close, checkpoints))
        with processes.plain_errors():
            loop.train(run, checkpoints, writer(path, parsed, plain), guard, trace)
        if processes.is_first():
            workdir.done(path)
            curves.draw(path)


def _close(checkpoints: Checkpoints, kind, error, trace) -> None:
    """Finish a save under way; after an error not with others, who may never come."""
    if error is None or processes.count() == 1:
        checkpoints.close()


def about(run: loop.Run) -> dict:
    """What of the machine and the data the workdir remembers."""
    return {
        "mesh": dict(run.mesh.shape),
        "processes": processes.count(),
        "devices": run.mesh.devices.flat[0].device_kind,
        "data": run.data,
    }


def check_alike(plain: dict, data: str, seconds: float) -> None:
    """All processes run the same code on the same config, packages and data.

    Raises:
      ConfigError: on all of them, with the first difference's process and sides.
    """
    mine = workdir.identity(plain, data)
    theirs = processes.from_first("identity", lambda: mine, seconds)

    def same():
        differences = workdir.unlike(mine, theirs)
        if differences:
            raise ConfigError(f"differs from process 0: {'; '.join(differences[:5])}")

    processes.agree("alike", same, seconds)


def open_checkpoints(path, kept) -> Checkpoints:
    return Checkpoints(
        path,
        keep=kept.keep,
        keep_every=kept.keep_every,
        keep_minutes=kept.keep_minutes,
    )


def writer(path, parsed: config.TrainConfig, plain: dict):
    """`open_writer(step)` of this process: the first one's says everything."""
    if not processes.is_first():
        return lambda step: Silent()
    return functools.partial(
        Writer,
        path,
        tensorboard=parsed.log.tensorboard,
        wandb=parsed.log.wandb,
        config=plain,
    )
