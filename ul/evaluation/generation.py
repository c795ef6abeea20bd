"""Samples against real images, and what the latents cost under the base model."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from ul.config import Stage2Config
from ul.data import datasets
from ul.evaluation import probes, samples_npz
from ul.evaluation import request as requests
from ul.evaluation.context import Shared, needs_of
from ul.evaluation.prompts import Asked, asked, captions, in_words
from ul.evaluation.records import (
    PICTURES,
    Record,
    folder,
    sampler,
    say_skipped,
    write,
    zoom,
)
from ul.evaluation.request import Request
from ul.inference import api
from ul.metrics import streaming
from ul.metrics.classifier import SvmClassifier
from ul.metrics.clip_score import ClipScore
from ul.metrics.features import pixels
from ul.metrics.streaming import METRICS, Comparison, Extractor, Reference, Statistics
from ul.objectives import held_out
from ul.runs import assemble
from ul.stages import registry
from ul.train import image_grids


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is measured, why the rest is not, and the references by metric."""

    metrics: tuple[str, ...]
    skipped: Mapping[str, str]
    references: Mapping[str, Reference]


def generator(request: Request, shared: Shared) -> dict:
    """The field's metrics of samples, and class accuracy on digits.

    The pixel distance of held-out real images to the reference stands beside that of
    the samples.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; a reference of another
        protocol, damaged weights.
    """
    gen = api.load_generator(
        request.workdir,
        step=request.step,
        weights=request.weights,
        stage1_workdir=request.stage1,
        guide=request.guide,
    )
    where = folder(request.workdir)
    count = request.num_examples or requests.SAMPLES
    wanted, said = asked(request, gen, count)
    plan = _plan(request, shared, gen, count)
    say_skipped(plan.skipped)
    seen, shown, found = _see(request, shared, gen, plan, wanted, count)
    result: dict[str, Any] = {"guidance": request.guidance, "num_examples": count}
    if request.guide is not None:
        result["guide"] = request.guide
    result |= _values(plan, seen)
    if "frechet" in plan.metrics:
        result["frechet_real"] = _real(shared, gen, plan.references["frechet"])
        result["frechet_features"] = pixels.NAME
    if "base_rate" in plan.metrics:
        result["base_rate_bpp"], result["base_rate_bpp_sem"] = _base_rate(gen)
    if in_words(gen):
        result["captions"] = captions(gen, 0, len(shown))
    record = Record(
        evaluation="generation",
        stem=f"generation-guidance{request.guidance:g}",
        loaded=gen,
        request=request,
        result=result | found,
        skipped=plan.skipped,
        protocol=_protocol(request, shared, gen, plan) | {"labels": said},
    )
    picture = image_grids.draw_grid(shown, _columns(gen), zoom(shown))
    return write(where, record, picture, animations(shown))


def animations(shown: np.ndarray) -> dict[str, bytes]:
    """Clips as one GIF, by the end of its name; none of images."""
    if shown.ndim == 4:
        return {}
    return {
        "clips.gif": image_grids.encode_gif(shown, image_grids.GIF_FPS, zoom(shown))
    }


def _columns(gen: api.Generator) -> int:
    """Of a picture: a class each, where there are classes to ask for."""
    return PICTURES if in_words(gen) else min(gen.num_classes, PICTURES)


def _applies(name: str, gen: api.Generator) -> bool:
    """Of the metrics that some runs have not."""
    if name == "base_rate":
        # An encoder's own variance would have to be taken off again: no figure there.
        return isinstance(gen.config, Stage2Config) and gen.autoencoder.codec.exact
    if name == "clip_score":
        return in_words(gen)
    return name not in probes.JUDGES or probes.obstacle(name, gen) is None


def _plan(request: Request, shared: Shared, gen: api.Generator, count: int) -> _Plan:
    """Before anything is sampled: what can be measured, and against what."""
    shape, mesh = gen.autoencoder.image_shape, gen.autoencoder.mesh
    skipped: dict[str, str] = {}
    names = requests.wanted(request.metrics, requests.GENERATION, shape)
    for name in names:
        if name in METRICS:
            reason = streaming.obstacle(name, shape, count, shared.networks)
        else:
            reason = None if _applies(name, gen) else "not for a run of this kind"
        if name == "clip_score" and reason is None:
            reason = shared.no_clip()
        if reason is not None:
            skipped[name] = reason
    against = [
        name
        for name in names
        if name in METRICS and METRICS[name].referenced and name not in skipped
    ]
    references: dict[str, Reference] = {}
    if request.reference is not None:
        given = shared.given(request.reference, shape, mesh)
        for name in against:
            if given.has(METRICS[name].need):
                references[name] = given
            elif name != "frechet":
                missing = f"{request.reference} has no {METRICS[name].need} features"
                skipped[name] = missing
    own = [name for name in against if name not in references | skipped]
    if own:
        training = shared.training(gen.config, needs_of(own), mesh)
        references |= dict.fromkeys(own, training)
    measured = tuple(name for name in names if name not in skipped)
    if request.metrics is None:  # what a run of this kind has not is not missed
        skipped = {n: r for n, r in skipped.items() if _applies(n, gen)}
    return _Plan(measured, skipped, references)


def sampled(
    gen: api.Generator, wanted: Asked, count: int, *, guidance: float, seed: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Images and what was asked, in parts; sample i has its own seed."""
    size = datasets.rows_at_once(
        gen.autoencoder.image_shape, gen.config.eval.batch_size
    )
    several = count > size
    bar = tqdm(
        total=count,
        unit="image",
        desc="samples",
        disable=not several,  # one part has bars of its own
        dynamic_ncols=True,
    )
    with bar:
        for first in range(0, count, size):
            part = wanted(first, min(first + size, count))
            image = gen.sample(
                part,
                guidance=guidance,
                seed=seed,
                first=first,
                progress=not several,
            )
            yield image, part
            bar.update(len(image))


def _see(
    request: Request,
    shared: Shared,
    gen: api.Generator,
    plan: _Plan,
    wanted: Asked,
    count: int,
) -> tuple[Statistics, np.ndarray, dict[str, float]]:
    """Every sample once: its features, the archive, the classifier; some to show."""
    needs = needs_of(plan.metrics)
    extract = Extractor(needs, shared.networks, gen.autoencoder.mesh)
    seen, bench = Statistics(needs), probes.Bench(gen, plan.metrics)
    shown: list[np.ndarray] = []
    score = None
    if "clip_score" in plan.metrics:
        score = ClipScore(shared.clip(), gen.autoencoder.mesh)
    # Of clips each is a row by itself.
    images = len(gen.autoencoder.image_shape) == 3
    most = PICTURES * (_columns(gen) if images else 1)
    with contextlib.ExitStack() as stack:
        kept = None
        if request.npz is not None:
            shape = gen.autoencoder.image_shape
            kept = stack.enter_context(samples_npz.writing(request.npz, count, shape))
        for image, part in sampled(
            gen, wanted, count, guidance=request.guidance, seed=request.seed
        ):
            seen.add(extract(image))
            if kept is not None:
                kept.add(image, part["label"])
            bench.see(image, part)
            if score is not None:
                last = score.count + len(image)
                score.add(image, captions(gen, score.count, last))
            if (rest := most - sum(len(s) for s in shown)) > 0:
                shown.append(image[:rest])
    found = bench.shares() | (score.record() if score is not None else {})
    return seen, np.concatenate(shown), found


def _values(plan: _Plan, seen: Statistics) -> dict[str, float]:
    """Each metric against its reference."""
    found: dict[str, float] = {}
    by_reference: dict[int, Comparison] = {}  # precision and recall are one computation
    for name in plan.metrics:
        if name in METRICS:
            reference = plan.references.get(name)
            comparison = by_reference.setdefault(
                id(reference), Comparison(seen, reference)
            )
            found[name] = METRICS[name].value(comparison)
    return found


def _real(shared: Shared, gen: api.Generator, reference: Reference) -> float:
    """The pixel distance of held-out images to the reference."""
    held_out = shared.statistics(
        gen.config, "eval", (pixels.NAME,), gen.autoencoder.mesh
    )
    return Comparison(held_out, reference).frechet(pixels.NAME)


def _protocol(
    request: Request, shared: Shared, gen: api.Generator, plan: _Plan
) -> dict[str, Any]:
    interval = gen.sampler.interval
    protocol: dict[str, Any] = {
        "count": request.num_examples or requests.SAMPLES,
        "seed": request.seed,
        "sampler": vars(gen.config.sampling),
        "decoder_sampler": sampler(gen.autoencoder.config),
        "guidance": request.guidance,
        "guidance_interval": [interval[0], interval[1]],
        "stage1_step": gen.autoencoder.step,
    }
    if few := getattr(gen.config, "context_frames", 0):
        protocol["context_frames"] = f"{few} real ones, and each clip begins with them"
    if gen.guide is not None:
        used = request.guidance != 1.0
        protocol["guide"] = gen.guide.about if used else "unused at guidance 1"
    protocol |= streaming.protocol(plan.metrics, plan.references, shared.networks)
    if "frechet" in plan.metrics:
        protocol["frechet"] = f"{pixels.NAME}: not FID, no pretrained network"
    if "base_rate" in plan.metrics:
        protocol["base_rate"] = "unweighted bound on held-out latents, labels given"
    if "clip_score" in plan.metrics:
        protocol["clip"] = shared.clip().protocol()
    if probes.JUDGES.keys() & set(plan.metrics):
        protocol["classifier"] = f"{SvmClassifier.name}, trained on the training split"
    return protocol


def _base_rate(gen: api.Generator) -> tuple[float, float]:
    """Bits per pixel of held-out latents under the base model, with standard error."""
    parsed, ae = gen.config, gen.autoencoder

    def prepare(batch):
        given = assemble.context_of(gen.config, ae.codec, ae.params, batch["image"])
        return batch | given | {"z_clean": ae.codec.encode(ae.params, batch["image"])}

    moments = held_out.HeldOut(
        registry.base_rate(gen.sampler), num_draws=parsed.eval.num_draws
    )(
        gen.params,
        datasets.eval_batches(
            parsed, datasets.dataset(parsed, "eval"), parsed.eval.num_examples
        ),
        api.seed_key(0),
        batch_size=parsed.eval.batch_size,
        prepare=prepare,
        mesh=ae.mesh,
    )
    area = int(np.prod(ae.image_shape[:-1]))
    return held_out.bits_per_pixel(moments["rate_nats"], area)
