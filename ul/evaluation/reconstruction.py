"""The evaluation of an autoencoder: reconstructions of held-out examples, and the rate."""

from typing import Any

import numpy as np

from ul.evaluation import plan as plans
from ul.evaluation.context import EvaluatedAutoencoder, EvaluationContext, data_digest
from ul.evaluation.records import (
    NUM_PICTURES,
    EvaluationResult,
    animation,
    check_count,
    evaluation_folder,
    sampler_protocol,
    write,
    zoom,
)
from ul.evaluation.request import Request
from ul.inference import api
from ul.train import image_grids


def evaluate_autoencoder(request: Request, context: EvaluationContext) -> dict:
    """Measure the rate and the reconstructions of held-out examples; write and return them.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; damaged weights.
    """
    ae = api.restore_stage1(
        request.workdir,
        ("encoder", "prior", "decoder"),
        step=request.step,
        weights=request.weights,
        stage1_workdir=request.stage1,
    )
    folder, examples = evaluation_folder(request.workdir), ae.datasets.eval
    requested = request.num_examples or ae.stage.evaluation.num_examples
    count = min(requested, len(examples))
    check_count(count)
    run = EvaluatedAutoencoder(
        request=request, context=context, autoencoder=ae, count=count
    )
    plan = plans.make_plan(run)
    context.print_skipped(plan.skipped)
    measured = plans.measurements(run, plan)
    pairs = _reconstruct(run, examples, measured)
    numbers: dict[str, Any] = {}
    figures = animation(pairs)
    for measurement in measured:
        numbers |= measurement.result()
        figures |= measurement.figures()
    numbers |= {
        "decoder": "sampled" if ae.codec.is_diffusion else "one call",
        "num_examples": count,
    }
    result = EvaluationResult(
        evaluation=run.evaluation,
        stem=run.evaluation,
        loaded=ae,
        request=request,
        numbers=numbers,
        skipped=plan.skipped,
        protocol=_protocol(run)
        | plans.protocol(run, plan, measured)
        | {"data_digest": data_digest(examples)},
    )
    title = f"step {ae.step:,}, {request.weights}"
    picture = image_grids.draw_pairs(pairs, title, zoom(pairs))
    return write(folder, result, picture, figures)


def _reconstruct(run: EvaluatedAutoencoder, examples, measured) -> np.ndarray:
    """One pass over the examples in batches; the first originals and their reconstructions."""
    first, shown = 0, None
    for batch in run.datasets.chunks(examples, range(run.count), "reconstruct"):
        image = batch["image"]
        output = run.autoencoder.reconstruct(image, seed=run.request.seed, first=first)
        for measurement in measured:
            measurement.add(output, {"image": image}, first)
        if shown is None:
            shown = np.concatenate([image[:NUM_PICTURES], output[:NUM_PICTURES]])
        first += len(image)
    assert shown is not None
    return shown


def _protocol(run: EvaluatedAutoencoder) -> dict[str, Any]:
    codec = run.autoencoder.codec
    draw = "" if codec.is_deterministic else "draw from the encoder's variance, "
    return {
        "split": "eval",
        "count": run.count,
        "seed": run.request.seed,
        "reconstruction": f"encode, {draw}add logsnr-{codec.latent_logsnr:g} noise, decode",
        "sampler": sampler_protocol(run.stage) if codec.is_diffusion else None,
    }
