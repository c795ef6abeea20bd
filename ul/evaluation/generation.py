"""The evaluation of a generator: samples against real images, and the base rate."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ul.checkpoints.workdir import load_run_record
from ul.data.datasets import chunk_rows
from ul.evaluation import plan as plans
from ul.evaluation import prompts, samples_npz
from ul.evaluation import request as requests
from ul.evaluation.context import (
    EvaluatedGenerator,
    EvaluationContext,
    class_names,
)
from ul.evaluation.measurement import Measurement
from ul.evaluation.prompts import ConditionBatches
from ul.evaluation.records import (
    NUM_PICTURES,
    EvaluationResult,
    animation,
    evaluation_folder,
    sampler_protocol,
    write,
    zoom,
)
from ul.evaluation.request import Request
from ul.inference import api
from ul.train import image_grids


def evaluate_generator(request: Request, context: EvaluationContext) -> dict:
    """Measure the samples of a generator and its base rate; write and return the numbers.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; a reference of another
        protocol, damaged weights.
    """
    gen = api.load_generator(
        request.workdir,
        step=request.step,
        weights=request.weights,
        stage1_workdir=request.stage1,
        guiding_model=request.autoguidance,
    )
    folder = evaluation_folder(request.workdir)
    run = EvaluatedGenerator(
        request=request,
        context=context,
        autoencoder=gen.autoencoder,
        count=request.num_examples or gen.stage.evaluation.num_samples,
        generator=gen,
    )
    conditions, labels = prompts.sample_conditions(request, gen, run.count)
    plan = plans.make_plan(run)
    context.print_skipped(plan.skipped)
    measured = plans.measurements(run, plan)
    shown = _sample(run, conditions, measured)
    numbers: dict[str, Any] = {"guidance": request.guidance, "num_examples": run.count}
    if request.autoguidance is not None:
        numbers["autoguidance"] = request.autoguidance
    if request.stage1 is not None:
        recorded = load_run_record(request.workdir)["provenance"]["stage1"]
        if not gen.autoencoder.is_recorded(recorded):
            numbers["decoder_run"] = f"{request.stage1} {gen.autoencoder.step}"
    figures = animation(shown)
    for measurement in measured:
        numbers |= measurement.result()
        figures |= measurement.figures()
    if prompts.has_text(gen):
        numbers["captions"] = prompts.captions(gen, 0, len(shown))
    result = EvaluationResult(
        evaluation=run.evaluation,
        stem=f"{run.evaluation}-guidance{request.guidance:g}",
        loaded=gen,
        request=request,
        numbers=numbers,
        skipped=plan.skipped,
        protocol=_protocol(run)
        | plans.protocol(run, plan, measured)
        | {"labels": labels},
    )
    return write(folder, result, _picture(run, shown), figures)


def _picture(run: EvaluatedGenerator, shown: np.ndarray) -> np.ndarray:
    """Draw samples under step, weights and guidance, and the class of each column."""
    gen, request = run.generator, run.request
    columns, conditions = _num_columns(gen), gen.stage.conditions
    names: list[str] = []
    if conditions.names == ("label",):
        label = requests.sample_labels(request, run.count, gen.num_classes)[
            : len(shown)
        ]
        if np.array_equal(label, np.arange(len(shown)) % columns):
            numbers = [str(number) for number in range(columns)]
            names = class_names(request.workdir)[:columns] or numbers
    return image_grids.add_text(
        image_grids.draw_grid(shown, columns, zoom(shown), conditions.context_frames),
        f"step {gen.step:,}, {request.weights}, guidance {request.guidance:g}"
        + ", a class per column" * bool(names),
        columns=names,
    )


def _num_columns(gen: api.Generator) -> int:
    """Columns of the picture: one for each class, where samples have classes."""
    return NUM_PICTURES if prompts.has_text(gen) else min(gen.num_classes, NUM_PICTURES)


def sample_batches(
    gen: api.Generator,
    conditions: ConditionBatches,
    count: int,
    *,
    guidance: float,
    seed: int,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield samples with their conditions in batches; sample i depends on seed and i alone."""
    size = chunk_rows(gen.autoencoder.image_shape, gen.stage.evaluation.batch_size)
    bar = tqdm(
        total=count,
        unit="image",
        desc="samples",
        disable=count <= size,  # the bars of a single batch are shown instead
        dynamic_ncols=True,
    )
    with bar:
        for first in range(0, count, size):
            condition = conditions(first, min(first + size, count))
            image = gen.sample(
                condition,
                guidance=guidance,
                seed=seed,
                first=first,
                progress=count <= size,
            )
            yield image, condition
            bar.update(len(image))


def _sample(
    run: EvaluatedGenerator,
    conditions: ConditionBatches,
    measured: Sequence[Measurement],
) -> np.ndarray:
    """Draw all samples once, measure and write them; the first ones for a picture."""
    request, gen = run.request, run.generator
    # A clip takes a row of the picture by itself.
    num_shown = NUM_PICTURES * (_num_columns(gen) if len(run.shape) == 3 else 1)
    first, shown = 0, list[np.ndarray]()
    with contextlib.ExitStack() as stack:
        writer = None
        if request.npz is not None:
            archive = samples_npz.open_writer(request.npz, run.count, run.shape)
            writer = stack.enter_context(archive)
        for image, condition in sample_batches(
            gen, conditions, run.count, guidance=request.guidance, seed=request.seed
        ):
            for measurement in measured:
                measurement.add(image, condition, first)
            if writer is not None:
                writer.add(image, condition["label"])
            if first < num_shown:
                shown.append(image[: num_shown - first])
            first += len(image)
    return np.concatenate(shown)


def _protocol(run: EvaluatedGenerator) -> dict[str, Any]:
    request, gen = run.request, run.generator
    low, high = gen.sampler.interval
    protocol: dict[str, Any] = {
        "count": run.count,
        "seed": request.seed,
        "sampler": sampler_protocol(gen.stage),
        "decoder_sampler": sampler_protocol(gen.autoencoder.stage),
        "guidance": request.guidance,
        "guidance_interval": [low, high],
        "stage1_step": gen.autoencoder.step,
    }
    if num_frames := gen.stage.conditions.context_frames:
        protocol["context_frames"] = (
            f"{num_frames} real ones, and each clip begins with them"
        )
    if gen.guiding_model is not None:
        is_used = request.guidance != 1.0
        protocol["autoguidance"] = (
            gen.guiding_model.description if is_used else "unused at guidance 1"
        )
    return protocol
