"""All evaluations that a command asks for: steps, weights, guidance scales."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence

from ul import config
from ul.core.errors import CheckpointError, ConfigError
from ul.evaluation import request as requests
from ul.evaluation.context import Shared
from ul.evaluation.generation import generator
from ul.evaluation.reconstruction import autoencoder
from ul.evaluation.request import Request
from ul.inference import weights as stored_weights
from ul.metrics.extractors import Networks

log = logging.getLogger("ul")

# A trainer that keeps one checkpoint may delete the newest while it is read.
TRIES = 5


def kinds_of(workdir) -> tuple[str, ...]:
    """Which evaluations a run has: "autoencoder", "generator"; a single stage has both."""
    parsed = stored_weights.load_config_of(workdir, config.RunConfig)
    found = ("autoencoder",) if isinstance(parsed, config.AutoencoderConfig) else ()
    samples = ("generator",) if isinstance(parsed, config.GeneratorConfig) else ()
    return found + samples


def every(
    request: Request, step: str, weights: Sequence[str], guidance: Sequence[str]
) -> Iterator[dict]:
    """Records, one after the other.

    step: "latest", "all" or a number. guidance: scales, as they were typed. A step that
    a running trainer deletes while it is read is passed over with a word; in place of
    the latest comes the next.

    Raises:
      ConfigError: flags that the run has no use for.
      CheckpointError: no step could be read.
    """
    kinds, scales = kinds_of(request.workdir), _scales(guidance)
    _check(request, kinds, step=step, weights=weights, scales=scales)
    shared = Shared(Networks(request.weights_dir), request.weights_dir)

    def of_step(number: int) -> Iterator[dict]:
        for name in weights:
            this = dataclasses.replace(request, step=number, weights=name)
            if "autoencoder" in kinds:
                yield autoencoder(this, shared)
            if "generator" in kinds:
                for scale in scales:
                    yield generator(dataclasses.replace(this, guidance=scale), shared)

    if step == "all":
        yield from _all(request.workdir, of_step)
    elif step == "latest":
        yield from _latest(request.workdir, of_step)
    else:
        yield from of_step(stored_weights.choose_step(request.workdir, _number(step)))


def _scales(guidance: Sequence[str]) -> list[float]:
    try:
        return [float(scale) for scale in guidance]
    except ValueError as e:
        raise ConfigError(f"--guidance {list(guidance)} are not numbers") from e


def _number(step: str) -> int:
    if not step.isdecimal():
        raise ConfigError(f"--step {step!r} is not latest, all or a number")
    return int(step)


def _check(request: Request, kinds, *, step, weights, scales) -> None:
    """Raises ConfigError before anything is loaded."""
    of = {"autoencoder": requests.RECONSTRUCTION, "generator": requests.GENERATION}
    names = [name for kind in kinds for name in of[kind]]
    requests.known(request.metrics or (), names)
    for flag in ("reference", "npz", "guide"):
        if getattr(request, flag) is not None and "generator" not in kinds:
            raise ConfigError(
                f"--{flag} is about samples, and {request.workdir} is an autoencoder's "
                "run, whose reconstructions are compared with their originals"
            )
    if request.npz is not None and (step == "all" or len(weights) * len(scales) > 1):
        raise ConfigError(
            "--npz takes the samples of one evaluation: one step, weights and guidance"
        )
    if step not in ("latest", "all"):
        _number(step)


def _vanished(workdir, step: int) -> bool:
    return step not in stored_weights.steps(workdir)


def _all(workdir, of_step: Callable[[int], Iterator[dict]]) -> Iterator[dict]:
    stored_weights.choose_step(workdir, None)  # raises where there is none
    done = 0
    for step in stored_weights.steps(workdir):
        try:
            for record in of_step(step):
                yield record
                done += 1
        except CheckpointError as e:
            if not _vanished(workdir, step):
                raise
            log.warning("step %d is skipped, it was deleted meanwhile: %s", step, e)
    if not done:
        raise CheckpointError(f"every step of {workdir} was deleted while it was read")


def _latest(workdir, of_step: Callable[[int], Iterator[dict]]) -> Iterator[dict]:
    for _ in range(TRIES):
        step = stored_weights.choose_step(workdir, None)
        try:
            yield from of_step(step)
            return
        except CheckpointError as e:
            if not _vanished(workdir, step):
                raise
            log.warning("step %d was deleted meanwhile, taking a newer: %s", step, e)
    raise CheckpointError(
        f"the newest step of {workdir} was deleted {TRIES} times while it was read; "
        "keep more steps (checkpoint.keep)"
    )
