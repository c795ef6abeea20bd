"""Run all evaluations that a command requests: several steps, weights, guidance scales."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence

from ul.core.errors import CheckpointError, ConfigError
from ul.evaluation import request as requests
from ul.evaluation.context import EvaluationContext
from ul.evaluation.generation import evaluate_generator
from ul.evaluation.reconstruction import evaluate_autoencoder
from ul.evaluation.request import Request
from ul.inference import weights as stored_weights
from ul.metrics import registry
from ul.metrics.extractors import FeatureNetworks
from ul.metrics.metric import GENERATION, RECONSTRUCTION

log = logging.getLogger("ul")

# A trainer that keeps one checkpoint may delete the newest while it is being read.
MAX_ATTEMPTS = 5
EVALUATIONS = {"autoencoder": RECONSTRUCTION, "generator": GENERATION}


def kinds_of(workdir) -> tuple[str, ...]:
    """Return what a run holds: "autoencoder", "generator", or both for a single stage."""
    stage = stored_weights.load_run(workdir).stage
    kinds = {"autoencoder": stage.is_autoencoder, "generator": stage.is_generator}
    return tuple(kind for kind, is_held in kinds.items() if is_held)


def run_all(
    request: Request, step: str, weights: Sequence[str], guidance: Sequence[str]
) -> Iterator[dict]:
    """Yield the results of all evaluations, one after the other.

    step: "latest", "all" or a number. guidance: the scales, as they were typed. A step that
    a running trainer deletes while it is read is skipped with a warning; in place of a
    deleted latest step comes the next one.

    Raises:
      ConfigError: flags that do not fit the run.
      CheckpointError: no step could be read.
    """
    kinds, scales = kinds_of(request.workdir), _parse_guidance(guidance)
    _check(request, kinds, step=step, weights=weights, scales=scales)
    networks = FeatureNetworks(request.weights_dir)
    context = EvaluationContext(networks, request.weights_dir)

    def evaluate_step(number: int) -> Iterator[dict]:
        for name in weights:
            at_step = dataclasses.replace(request, step=number, weights=name)
            if "autoencoder" in kinds:
                yield evaluate_autoencoder(at_step, context)
            if "generator" in kinds:
                for scale in scales:
                    guided = dataclasses.replace(at_step, guidance=scale)
                    yield evaluate_generator(guided, context)

    if step == "all":
        yield from _evaluate_all(request.workdir, evaluate_step)
    elif step == "latest":
        yield from _evaluate_latest(request.workdir, evaluate_step)
    else:
        number = stored_weights.choose_step(request.workdir, _parse_step(step))
        yield from evaluate_step(number)


def _parse_guidance(guidance: Sequence[str]) -> list[float]:
    try:
        return [float(scale) for scale in guidance]
    except ValueError as e:
        raise ConfigError(
            f"--guidance must be numbers, separated by commas; got {','.join(guidance)!r}."
        ) from e


def _parse_step(step: str) -> int:
    if not step.isdecimal():
        raise ConfigError(f"--step must be latest, all or a number; got {step!r}.")
    return int(step)


def _check(request: Request, kinds, *, step, weights, scales) -> None:
    """Raise ConfigError for flags that do not fit the run, before anything is loaded."""
    known = [name for kind in kinds for name in registry.names(EVALUATIONS[kind])]
    requests.check_metrics(request.metrics or (), known)
    for flag in ("reference", "npz", "autoguidance", "decoded"):
        if getattr(request, flag) not in (None, False) and "generator" not in kinds:
            raise ConfigError(
                f"--{flag} applies to samples; {request.workdir} holds an autoencoder, "
                "whose reconstructions are compared with their originals. Remove the flag."
            )
    if request.npz is not None and (step == "all" or len(weights) * len(scales) > 1):
        raise ConfigError(
            "--npz needs one step, one kind of weights and one guidance scale; got step "
            f"{step}, weights {', '.join(weights)} and guidance "
            f"{', '.join(f'{scale:g}' for scale in scales)}."
        )
    if step not in ("latest", "all"):
        _parse_step(step)


def _is_deleted(workdir, step: int) -> bool:
    return step not in stored_weights.steps(workdir)


def _evaluate_all(
    workdir, evaluate_step: Callable[[int], Iterator[dict]]
) -> Iterator[dict]:
    stored_weights.choose_step(workdir, None)  # raises where there is none
    num_results = 0
    for step in stored_weights.steps(workdir):
        try:
            for result in evaluate_step(step):
                yield result
                num_results += 1
        except CheckpointError as e:
            if not _is_deleted(workdir, step):
                raise
            log.warning(
                "step %d was deleted before it was read and is skipped (%s)", step, e
            )
    if not num_results:
        raise CheckpointError(
            f"Every step of {workdir} was deleted while it was read; keep more steps "
            "(checkpoint.keep)."
        )


def _evaluate_latest(
    workdir, evaluate_step: Callable[[int], Iterator[dict]]
) -> Iterator[dict]:
    for _ in range(MAX_ATTEMPTS):
        step = stored_weights.choose_step(workdir, None)
        try:
            yield from evaluate_step(step)
            return
        except CheckpointError as e:
            if not _is_deleted(workdir, step):
                raise
            log.warning(
                "step %d was deleted before it was read; evaluating a newer step (%s)",
                step,
                e,
            )
    raise CheckpointError(
        f"The newest step of {workdir} was deleted {MAX_ATTEMPTS} times while it was "
        "read; keep more steps (checkpoint.keep)."
    )
