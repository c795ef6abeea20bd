"""Assemble a run: from a config to the mesh, the update and all that the loop needs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from ul.config import Stage1Config, TrainConfig
from ul.core import batching, rng
from ul.core import mesh as meshes
from ul.core.errors import ConfigError
from ul.data import pipeline
from ul.data.datasets import Datasets
from ul.data.latent_cache import LatentCache
from ul.models import attention_kernels
from ul.objectives import held_out
from ul.stages import kinds
from ul.stages.base import Stage2Config
from ul.stages.codec import Codec
from ul.stages.decoder import SeparateDecoderConfig
from ul.stages.pixel_diffusion import PixelDiffusionConfig
from ul.stages.stage import Stage
from ul.train import image_grids, optim
from ul.train.loop import Run, UpdateSpec

# Small images are enlarged to about this many pixels in pictures.
_PICTURE_SIDE = 48


def make_mesh(config: TrainConfig, devices: Any = None) -> jax.sharding.Mesh:
    """Return the run's mesh over all devices, or over the given ones.

    Raises:
      ConfigError: the batch does not divide over it, or an implementation of attention is
        for another kind of device.
    """
    mesh = meshes.make(config.mesh.data, config.mesh.fsdp, devices)
    platform = meshes.platform(mesh)
    for implementation, needed in attention_kernels.PLATFORMS.items():
        names = kinds.networks_with_attention(config, implementation)
        if names and platform != needed:
            flags = " ".join(f"--config.{name}.attention=auto" for name in names)
            raise ConfigError(
                f"attention={implementation!r} must run on a {needed}; the mesh consists of "
                f"{platform} devices. Pass {flags}."
            )
    check_fits(config, mesh.size)
    return mesh


def check_fits(config: TrainConfig, num_devices: int, slices: int = 1) -> None:
    """Check mesh and batch of a config against a number of devices, absent or present.

    Raises:
      ConfigError: the mesh has another number of devices or crosses slices, or the batch
        does not divide.
    """
    meshes.axis_sizes(config.mesh.data, config.mesh.fsdp, num_devices, slices)
    parts = num_devices * config.accumulate
    if config.batch_size % parts:
        raise ConfigError(
            f"batch_size must be divisible by devices x accumulate = {num_devices} x "
            f"{config.accumulate} = {parts}; got {config.batch_size}."
        )


def learning_rate(config: TrainConfig, *, steps: int) -> optax.Schedule:
    """Return the learning rate of a config as a function of the step, for `steps` steps."""
    optimizer = config.optimizer
    return optim.learning_rate(
        lr=optimizer.lr,
        warmup=optimizer.warmup,
        steps=steps,
        final_fraction=optimizer.final_fraction,
        schedule=optimizer.schedule,
        decay_fraction=optimizer.decay_fraction,
    )


def make_update(
    config: TrainConfig, stage: Stage, mesh: jax.sharding.Mesh
) -> UpdateSpec:
    """Return one optimizer update of a stage on a mesh, which may be of absent devices.

    It reads no data and restores no stage 1.
    """
    root, optimizer = jax.random.key(config.seed), config.optimizer
    schedule = learning_rate(config, steps=config.steps)
    assert stage.objective is not None, "only an imported stage has no objective"
    return UpdateSpec(
        init=lambda: stage.init(root),
        objective=stage.objective,
        clip=optimizer.clip,
        tx=optim.optimizer(
            optimizer.kind,
            schedule,
            b1=optimizer.b1,
            b2=optimizer.b2,
            weight_decay=optimizer.weight_decay,
            clip=optimizer.clip,
        ),
        lr=schedule,
        root=root,
        mesh=mesh,
        ema_names=config.ema,
        accumulate=config.accumulate,
    )


def abstract_batch(stage: Stage, batch_size: int, mesh: jax.sharding.Mesh) -> dict:
    """Return shapes, dtypes and shardings of a global batch that the objective takes."""
    fields = dict(stage.batch) | {"row": ((), np.int32), "stratum": ((), np.float32)}
    sharding = meshes.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)
        for name, (shape, dtype) in fields.items()
    }


def _make_run(
    config: TrainConfig, stage: Stage, mesh: jax.sharding.Mesh, train_dataset, **fields
) -> Run:
    """Return a run with what all stages share: batches, periods and the update.

    train_dataset: the endless training examples. fields: the remaining fields of `Run`.
    """

    def batches(start, stop):
        return pipeline.train_batches(
            train_dataset,
            batch_size=config.batch_size,
            start=start,
            stop=stop,
            rows=meshes.local_rows(mesh, config.batch_size),
            threads=config.data.threads,
        )

    return Run(
        batches=batches,
        data_digest=pipeline.fingerprint(train_dataset, config.batch_size),
        steps=config.steps,
        batch_size=config.batch_size,
        num_pixels=_num_pixels(stage),
        log_every=config.log.every,
        validate_every=config.validation.every,
        save_every=config.checkpoint.every,
        save_minutes=config.checkpoint.minutes,
        **vars(make_update(config, stage, mesh)),
        **fields,
    )


def _num_pixels(stage: Stage) -> int:
    return int(np.prod(stage.image_shape[:-1]))


def _held_out_terms(
    config: TrainConfig,
    stage: Stage,
    examples: Any,
    mesh: jax.sharding.Mesh,
    prepare: Callable[[dict, int, Any], dict],
) -> Callable[..., dict[str, float]]:
    """Return `terms(params, check) -> {"eval_<name>_bpp": bits per pixel}`.

    They are the terms of the held-out objective, as means over `examples`. `prepare`: as
    in `Run`; it is called for step 0.
    """
    assert stage.held_out_objective is not None
    measure = held_out.HeldOut(
        stage.held_out_objective, num_draws=config.eval.num_draws
    )
    pixels = _num_pixels(stage)

    def terms(params, check) -> dict[str, float]:
        moments = measure(
            params,
            pipeline.eval_batches(
                examples,
                batch_size=config.eval.batch_size,
                num_examples=config.validation.num_examples,
            ),
            jax.random.key(0),
            batch_size=config.eval.batch_size,
            prepare=lambda batch: prepare(batch, 0, params),
            mesh=mesh,
            check=check,
        )
        return {
            f"eval_{name.removesuffix('_nats')}_bpp": held_out.bits_per_pixel(
                m, pixels
            )[0]
            for name, m in moments.items()
            if name.endswith("_nats")
        }

    return terms


def _validate_reconstructions(
    config: TrainConfig,
    stage: Stage,
    datasets: Datasets,
    mesh: jax.sharding.Mesh,
    codec: Codec,
    frozen: Any,
    prepare: Callable[[dict, int, Any], dict],
) -> Callable:
    """Return `Run.validate` of an autoencoder: the held-out terms and reconstructions.

    frozen: parameters of networks that are not trained. prepare: as in `Run`.
    """
    examples = datasets.verified_held_out(config.validation.num_examples)
    terms = _held_out_terms(config, stage, examples, mesh, prepare)
    shown = next(datasets.eval_batches(datasets.eval, config.validation.num_images))
    key = jax.random.key(0)

    def validate(params, check):
        reconstructions = batching.map_rows(
            lambda image, row: codec.reconstruct({**frozen, **params}, image, row, key),
            {"image": shown["image"], "row": shown["row"]},
            batch_size=config.eval.batch_size,
            mesh=mesh,
            check=check,
        )
        pairs = np.concatenate([shown["image"], reconstructions])
        title = "held-out examples"
        picture = image_grids.draw_pairs(pairs, title, _zoom(stage))
        return terms(params, check), {"reconstructions": picture}

    return validate


def _unchanged(batch: dict, step: int, params) -> dict:
    return batch  # a stage 1 trains on images


def build_stage1_run(config: Stage1Config, stage: Stage, datasets: Datasets) -> Run:
    """Return the run of a stage 1, ready for the loop.

    Validation measures the held-out terms and draws reconstructions.
    """
    mesh, codec = make_mesh(config), stage.codec
    assert codec is not None
    return _make_run(
        config,
        stage,
        mesh,
        datasets.train,
        prepare=_unchanged,
        validate=_validate_reconstructions(
            config, stage, datasets, mesh, codec, {}, _unchanged
        ),
        rate_floor_bpp=config.loss.rate_floor_bpp or 0.0,
        ramp_steps=getattr(config.loss, "ramp_steps", 0),
    )


def build_decoder_run(
    config: SeparateDecoderConfig,
    stage: Stage,
    datasets: Datasets,
    codec: Codec,
    frozen: Any,
    initial: Callable[[], dict],
    add_targets: Callable[[dict, int, Any], dict] | None = None,
) -> Run:
    """Return the run of a decoder on the frozen encoder of a stage 1.

    codec, frozen: the networks of stage 1, and their parameters. initial: see `Run`.
    add_targets: adds to a batch what an objective needs besides the latents.
    """
    assert stage.separate_decoder is not None
    mesh = make_mesh(config)
    whole = dataclasses.replace(codec, decoder=stage.separate_decoder.decoder)

    def prepare(batch, step, params):
        key = rng.stream(jax.random.key(config.seed), "latents", step)
        z_clean = codec.latents(frozen, batch["image"], batch["row"], key)
        batch = batch | {"z_clean": z_clean}
        return add_targets(batch, step, params) if add_targets else batch

    return _make_run(
        config,
        stage,
        mesh,
        datasets.train,
        prepare=prepare,
        validate=_validate_reconstructions(
            config,
            stage,
            datasets,
            mesh,
            whole,
            frozen,
            prepare,
        ),
        rate_floor_bpp=0.0,
        initial=initial,
    )


def build_stage2_run(
    config: Stage2Config | PixelDiffusionConfig,
    stage: Stage,
    datasets: Datasets,
    codec: Codec,
    frozen: Any,
    cache: LatentCache | None = None,
) -> Run:
    """Return the run of a stage 2 on the latents of a frozen stage 1.

    codec, frozen: the encoder and decoder of stage 1, and their parameters. cache: latents
    of both splits that the encoder computed before.
    """
    mesh, sampler, key = make_mesh(config), stage.sampler, jax.random.key(0)
    assert sampler is not None
    latent_dtype = getattr(config, "latent_dtype", "float32")

    def prepare(batch, step, params):
        if cache is None:
            image = batch.pop("image")
            latent_key = rng.stream(jax.random.key(config.seed), "latents", step)
            batch["z_clean"] = codec.latents(frozen, image, batch["row"], latent_key)
            batch |= context_condition(stage, codec, frozen, image)
        # Outside of jit, where a compiler may remove a conversion that only rounds.
        return batch | {
            name: batch[name].astype(latent_dtype).astype(np.float32)
            for name in ("z_clean", "context")
            if name in batch
        }

    num_examples = config.validation.num_examples
    examples = cache.held_out if cache else datasets.verified_held_out(num_examples)
    conditions = _validation_conditions(config, stage, examples, codec, frozen, mesh)
    terms = _held_out_terms(config, stage, examples, mesh, prepare)

    def validate(params, check):
        samples = batching.map_rows(
            lambda row, **condition: codec.decode(
                frozen, sampler.sample(params, condition, row, key, 1.0), row, key
            ),
            conditions,
            batch_size=config.eval.batch_size,
            mesh=mesh,
            check=check,
        )
        columns = min(len(samples), stage.num_classes if "label" in conditions else 10)
        given = stage.conditions.context_frames
        picture = image_grids.draw_grid(samples, columns, _zoom(stage), given)
        return terms(params, check), {"samples": picture}

    return _make_run(
        config,
        stage,
        mesh,
        datasets.train if cache is None else cache.train,
        prepare=prepare,
        validate=validate,
        rate_floor_bpp=0.0,
    )


def context_condition(
    stage: Stage, codec: Codec, frozen, image
) -> dict[str, jax.Array]:
    """Return the latent of the context frames of clips, as a condition; {} for images."""
    if "context" not in stage.conditions:
        return {}
    frames = stage.conditions.context_frames
    return {"context": codec.encode_context(frozen, image, frames)}


def _validation_conditions(
    config: TrainConfig, stage: Stage, examples, codec: Codec, frozen, mesh
) -> dict[str, np.ndarray]:
    """Return the conditions of the samples that validation draws, and their rows.

    They are all classes in turn, or else those of the first held-out examples.
    """
    names = stage.conditions.names
    row = np.arange(config.validation.num_images, dtype=np.int32)
    if names == ("label",):
        return {"label": row % stage.num_classes, "row": row}
    batch = pipeline.make_batch(examples, row % len(examples), row, len(row))
    if "context" in names and "context" not in batch:
        batch |= batching.map_rows(
            lambda image: context_condition(stage, codec, frozen, image),
            {"image": batch["image"]},
            batch_size=config.eval.batch_size,
            mesh=mesh,
        )
    return {name: batch[name] for name in ("row", *names)}


def _zoom(stage: Stage) -> int:
    return max(1, _PICTURE_SIDE // stage.image_shape[-2])
