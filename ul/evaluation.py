"""Evaluations of restored runs: one dict of numbers, with the protocol they come from."""

import datetime
import json
from typing import Any

import jax
import numpy as np
from etils import epath

from ul import api, build, config, runs
from ul.core.errors import StorageError
from ul.evals import frechet, rate, reconstruction
from ul.evals.classifier import Classifier
from ul.evals.features import pixels
from ul.train.workdir import code_version, write_atomic
from ul.train.writer import grid, save_png

# Sources whose classes a simple classifier of real images can tell apart.
CLASSIFIED = {"digits"}
# Fewer examples than this for each dimension and a covariance says little.
EXAMPLES_PER_DIMENSION = 10
MOST_DIMENSIONS = 4096
PICTURES = 10


def collect(parsed, split: str, limit: int) -> dict[str, np.ndarray]:
    """The first images and labels of a split in order, without augmentation."""
    one_pass = (
        runs.dataset(parsed, "eval") if split == "eval" else runs.plain_train(parsed)
    )
    found = [one_pass[i] for i in range(min(limit, len(one_pass)))]
    return {
        "image": np.stack([f["image"] for f in found]),
        "label": np.asarray([f["label"] for f in found], np.int32),
    }


def autoencoder(
    workdir, *, step, weights: str, seed: int, num_examples: int | None
) -> dict:
    """Held-out rate with its standard error, PSNR and SSIM of sampled reconstructions.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders.
    """
    ae = api.restore_stage1(
        workdir, ("encoder", "prior", "decoder"), step=step, weights=weights
    )
    folder, count = _folder(workdir), num_examples or ae.config.eval.examples
    objective = build.joint_objective(ae.config, build.codec(ae.config))
    moments = rate.HeldOut(objective, draws=ae.config.eval.draws)(
        ae.params,
        runs.eval_batches(ae.config, runs.dataset(ae.config, "eval"), count),
        api.seed_key(seed),
        batch_size=ae.config.eval.batch_size,
        prepare=lambda batch: batch,
        on=ae.mesh,
    )
    area = int(np.prod(ae.image_shape[:2]))
    result: dict[str, Any] = {}
    for name, m in moments.items():
        if name.endswith("_nats"):
            key = name.removesuffix("_nats") + "_bpp"
            result[key], result[f"{key}_sem"] = rate.bits_per_pixel(m, area)
    images = collect(ae.config, "eval", count)["image"]
    again = ae.reconstruct(images, seed=seed, progress=True)
    result["psnr_db"] = float(reconstruction.psnr_db(images, again).mean())
    result["ssim"] = float(reconstruction.ssim(images, again).mean())
    result["gaussian_psnr_db"] = _gaussian_bound(ae.config, result["rate_bpp"] * area)
    result["num_examples"] = len(images)
    protocol = {
        "split": "eval",
        "reconstruction": "encode, add logsnr-5 noise, sample the decoder",
        "psnr": "per image, peak 255, then the mean",
        "ssim": f"scikit-image, flat window {reconstruction.ssim_window(images.shape[1:])}",
        "rate": f"prior term + terminal KL, mean of {ae.config.eval.draws} draws an example",
        "sampler": vars(ae.config.sampling),
    }
    picture = grid(
        np.concatenate([images[:PICTURES], again[:PICTURES]]), PICTURES, _zoom(images)
    )
    return _write(folder, "reconstruction", ae, seed, result, protocol, picture)


def _gaussian_bound(parsed, rate_bits: float) -> float | None:
    """PSNR at that rate if the training images were Gaussian; None if they are too few
    for their dimensions, or those too many for one covariance."""
    dimensions = int(np.prod(parsed.data.image_shape))
    enough = EXAMPLES_PER_DIMENSION * dimensions
    too_few = len(runs.plain_train(parsed)) < enough
    if too_few or dimensions > MOST_DIMENSIONS or rate_bits <= 0:
        return None
    train = collect(parsed, "train", max(enough, 10_000))["image"]
    variances = reconstruction.covariance_spectrum(train)
    return reconstruction.gaussian_psnr_db(variances, rate_bits)


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
    folder = _folder(workdir)
    label = np.arange(num_examples, dtype=np.int32) % gen.num_classes
    images = gen.sample(label, guidance=guidance, seed=seed, progress=True)
    train = collect(gen.config, "train", 50_000)
    real = collect(gen.config, "eval", 50_000)
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
        "decoder_sampler": vars(gen.autoencoder.config.sampling),
        "guidance_interval": [gen.sampler.interval[0], gen.sampler.interval[1]],
        "stage1_step": gen.autoencoder.step,
    }
    if gen.config.data.source["kind"] in CLASSIFIED:
        judge = Classifier(train["image"], train["label"])
        result["class_accuracy"] = judge.accuracy(images, label)
        result["class_accuracy_real"] = judge.accuracy(real["image"], real["label"])
        protocol["classifier"] = f"{judge.name}, trained on the real training split"
    shown = images[: PICTURES * gen.num_classes][: PICTURES**2]
    columns = min(gen.num_classes, PICTURES)
    name = f"generation-guidance{guidance:g}"
    return _write(
        folder, name, gen, seed, result, protocol, grid(shown, columns, _zoom(images))
    )


def _zoom(images: np.ndarray) -> int:
    return max(1, 48 // images.shape[1])


def _folder(workdir) -> epath.Path:
    """workdir/evals, made before anything expensive.

    Raises:
      StorageError: it cannot be made.
    """
    folder = epath.Path(workdir) / "evals"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{folder} cannot be made: {e}") from e
    return folder


def _write(folder, name: str, loaded, seed: int, result, protocol, picture) -> dict:
    """evals/<name>-<step>-<weights>-seed<seed>-n<count>.json, and a picture beside it."""
    stem = (
        f"{name}-{loaded.step}-{loaded.weights.replace(':', '')}"
        f"-seed{seed}-n{result['num_examples']}"
    )
    record = {
        "evaluation": name,
        "step": loaded.step,
        "weights": loaded.weights,
        "seed": seed,
        **result,
        "protocol": protocol,
        "workdir": str(folder.parent),
        "code": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    save_png(folder / f"{stem}.png", picture)
    write_atomic(folder / f"{stem}.json", json.dumps(record, indent=2))
    return record


def stage_of(workdir) -> str:
    """ "joint" or "base"."""
    kinds = {config.Joint: "joint", config.Base: "base"}
    return kinds[type(api.load_config_of(workdir, config.Common))]
