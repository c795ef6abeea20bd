"""Samples against real images, and what the latents cost under the base model."""

from typing import Any

import numpy as np

from ul import api, build, runs
from ul.config import Base
from ul.evals import frechet, rate
from ul.evals.classifier import Classifier
from ul.evals.features import pixels
from ul.evaluation.records import PICTURES, check_count, folder, sampler, write, zoom
from ul.train.writer import grid

# Sources whose classes a simple classifier of real images can tell apart.
CLASSIFIED = {"digits"}


def generator(
    workdir,
    *,
    step,
    weights: str,
    seed: int,
    num_examples: int,
    guidance: float,
    stage1=None,
) -> dict:
    """Frechet distance of samples to the training images; class accuracy on digits.

    Labels go round the classes. The distance of held-out real images to the training
    images stands beside it.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders.
    """
    gen = api.load_generator(workdir, step=step, weights=weights, stage1_workdir=stage1)
    pixels.check(gen.autoencoder.image_shape)
    where = folder(workdir)
    label = np.arange(num_examples, dtype=np.int32) % gen.num_classes
    images = gen.sample(label, guidance=guidance, seed=seed, progress=True)
    train = runs.collect(gen.config, "train", 50_000)
    real = runs.collect(gen.config, "eval", 50_000)
    check_count(real["image"])
    reference = frechet.statistics(pixels.features(train["image"]))

    def distance(image):
        return frechet.distance(frechet.statistics(pixels.features(image)), reference)

    result: dict[str, Any] = {
        "frechet": distance(images),
        "frechet_real": distance(real["image"]),
        "frechet_features": pixels.NAME,
        "guidance": guidance,
        "num_examples": num_examples,
    }
    protocol = {
        "frechet": f"{pixels.NAME}: not FID, no pretrained network; reference: "
        f"{len(train['image'])} training images; real: {len(real['image'])} held-out ones",
        "labels": "i mod num_classes",
        "sampler": vars(gen.config.sampling),
        "decoder_sampler": sampler(gen.autoencoder.config),
        "guidance_interval": [gen.sampler.interval[0], gen.sampler.interval[1]],
        "stage1_step": gen.autoencoder.step,
    }
    # An encoder's own variance would have to be taken off again: no figure there.
    if isinstance(gen.config, Base) and gen.autoencoder.codec.exact:
        result["base_rate_bpp"], result["base_rate_bpp_sem"] = _base_rate(gen)
        protocol["base_rate"] = "unweighted bound on held-out latents, labels given"
    if gen.config.data.source["kind"] in CLASSIFIED:
        judge = Classifier(train["image"], train["label"])
        result["class_accuracy"] = judge.accuracy(images, label)
        result["class_accuracy_real"] = judge.accuracy(real["image"], real["label"])
        protocol["classifier"] = f"{judge.name}, trained on the real training split"
    shown = images[: PICTURES * gen.num_classes][: PICTURES**2]
    name = f"generation-guidance{guidance:g}"
    picture = grid(shown, min(gen.num_classes, PICTURES), zoom(images))
    return write(where, name, gen, seed, result, protocol, picture)


def _base_rate(gen: api.Generator) -> tuple[float, float]:
    """Bits per pixel of held-out latents under the base model, with standard error."""
    parsed, ae = gen.config, gen.autoencoder

    def prepare(batch):
        return batch | {"z_clean": ae.codec.encode(ae.params, batch["image"])}

    moments = rate.HeldOut(build.base_rate(gen.sampler), draws=parsed.eval.draws)(
        gen.params,
        runs.eval_batches(parsed, runs.dataset(parsed, "eval"), parsed.eval.examples),
        api.seed_key(0),
        batch_size=parsed.eval.batch_size,
        prepare=prepare,
        on=ae.mesh,
    )
    area = int(np.prod(ae.image_shape[:2]))
    return rate.bits_per_pixel(moments["rate_nats"], area)
