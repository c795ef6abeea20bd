"""A config's run: data, mesh and everything else the loop needs, for either stage."""

import functools
from typing import Any

import jax
import numpy as np

from ul.stages import registry
from ul.data import datasets
from ul.config import Stage2Config, TrainConfig, PixelDiffusionConfig, Stage1Config
from ul.core import mesh as meshes
from ul.core import rng
from ul.core.errors import ConfigError
from ul.data import pipeline
from ul.data.latent_cache import Cache
from ul.core import batching
from ul.objectives import held_out
from ul.stages.codec import Codec
from ul.train import image_grids, optim
from ul.train.loop import Run, Update


def mesh(config: TrainConfig, devices: Any = None) -> jax.sharding.Mesh:
    """The run's mesh, over which its batch must divide; of all devices, or of these."""
    made = meshes.make(config.mesh.data, config.mesh.fsdp, devices)
    platform = made.devices.flat[0].platform
    if platform != "gpu" and registry.uses_cudnn(config):
        raise ConfigError(
            f"attention 'cudnn' needs a GPU, and this is a {platform}; "
            "set the networks' attention to 'xla'"
        )
    rows = made.size * config.accumulate
    if config.batch_size % rows:
        raise ConfigError(
            f"batch_size {config.batch_size} is not divisible by {made.size} devices x "
            f"accumulate {config.accumulate} = {rows}"
        )
    return made


def update(config: TrainConfig, on: jax.sharding.Mesh) -> Update:
    """One update of any stage on a mesh, also one of devices that are not here.

    Reads no data and no stage 1.
    """
    root, o = jax.random.key(config.seed), config.optimizer
    lr = optim.learning_rate(
        lr=o.lr, warmup=o.warmup, steps=config.steps, final_fraction=o.final_fraction
    )
    if isinstance(config, Stage1Config):
        made = registry.stage1(config, training=True)
        assert made.objective is not None  # only what is not trained has none
        key, shape = rng.stream(root, "init"), config.data.image_shape
        init, objective = (
            functools.partial(made.modules.init, key, shape),
            made.objective,
        )
    else:
        assert isinstance(config, Stage2Config | PixelDiffusionConfig)
        sampler = registry.latent_sampler(config, training=True)
        init = functools.partial(registry.init_base, config, root)
        objective = registry.base_objective(
            config, sampler, label_dropout=config.loss.label_dropout
        )
    return Update(
        init=init,
        objective=objective,
        tx=optim.adamw(lr, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, clip=o.clip),
        lr=lr,
        root=root,
        mesh=on,
        decays=config.ema,
        accumulate=config.accumulate,
    )


def abstract_batch(config: TrainConfig, on: jax.sharding.Mesh) -> dict:
    """Shapes, dtypes and shardings of what the objective takes of a global batch."""
    rows = (config.batch_size,)
    batch: dict[str, tuple[tuple[int, ...], Any]] = {
        "row": (rows, np.int32),
        "stratum": (rows, np.float32),
    }
    if isinstance(config, Stage1Config):
        batch["image"] = (*rows, *config.data.image_shape), np.uint8
        batch["label"] = rows, np.int32
    else:
        assert isinstance(config, Stage2Config | PixelDiffusionConfig)
        batch["z_clean"] = (*rows, *registry.latent_shape(config)), np.float32
        for name, field in registry.conditions(config).items():
            batch[name] = (*rows, *field.shape), field.dtype
    lies = meshes.batch_sharding(on)
    return {k: jax.ShapeDtypeStruct(*v, sharding=lies) for k, v in batch.items()}


def _run(config: TrainConfig, on: jax.sharding.Mesh, train, **parts) -> Run:
    """What both stages share."""

    def batches(start, stop):
        return pipeline.train_batches(
            train,
            batch_size=config.batch_size,
            start=start,
            stop=stop,
            rows=meshes.local_rows(on, config.batch_size),
            threads=config.data.threads,
        )

    return Run(
        batches=batches,
        data=pipeline.fingerprint(train, config.batch_size),
        steps=config.steps,
        batch_size=config.batch_size,
        pixels=int(np.prod(config.data.image_shape[:-1])),
        log_every=config.log.every,
        validate_every=config.validation.every,
        save_every=config.checkpoint.every,
        save_minutes=config.checkpoint.minutes,
        **vars(update(config, on)),
        **parts,
    )


def _held_out(config, objective, examples, on, prepare):
    """`scalars(params, check)`: every term on held-out examples, as `eval_*_bpp`."""
    measure = held_out.HeldOut(objective, draws=config.eval.num_draws)
    pixels = int(np.prod(config.data.image_shape[:-1]))

    def scalars(params, check) -> dict[str, float]:
        found = measure(
            params,
            datasets.eval_batches(config, examples, config.validation.num_examples),
            jax.random.key(0),
            batch_size=config.eval.batch_size,
            prepare=prepare,
            on=on,
            check=check,
        )
        return {
            f"eval_{name.removesuffix('_nats')}_bpp": held_out.bits_per_pixel(m, pixels)[0]
            for name, m in found.items()
            if name.endswith("_nats")
        }

    return scalars


def stage1_run(config: Stage1Config) -> Run:
    """Stage 1 of any kind, ready for the loop."""
    made, on = registry.stage1(config), mesh(config)
    examples = datasets.dataset(config, "eval")
    scalars = _held_out(config, made.objective, examples, on, lambda batch: batch)
    few = next(datasets.eval_batches(config, examples, config.validation.num_images))
    key = jax.random.key(0)

    def validate(params, check):
        again = batching.map_rows(
            lambda image, row: made.codec.reconstruct(params, image, row, key),
            {"image": few["image"], "row": few["row"]},
            batch_size=config.eval.batch_size,
            on=on,
            check=check,
        )
        pairs = np.concatenate([few["image"], again])
        picture = image_grids.picture(pairs, len(few["row"]), _scale(config))
        return scalars(params, check), {"reconstructions": picture}

    return _run(
        config,
        on,
        datasets.dataset(config, "train"),
        prepare=lambda batch, step: batch,
        validate=validate,
        rate_floor_bpp=config.loss.rate_floor_bpp,
    )


def base_run(
    config: Stage2Config | PixelDiffusionConfig, encoder: Codec, frozen: Any, cache: Cache | None = None
) -> Run:
    """Stage 2, ready for the loop, on the latents of a frozen stage 1.

    `frozen`: parameters of stage 1's encoder and decoder. `cache`: latents of both
    splits that the encoder gave before.
    """
    made, on = registry.latent_sampler(config), mesh(config)
    key, root = jax.random.key(0), jax.random.key(config.seed)

    def prepare(batch, step):
        if cache is None:
            image, own = batch.pop("image"), rng.stream(root, "latents", step)
            batch["z_clean"] = encoder.latents(frozen, image, batch["row"], own)
            batch |= context_of(config, encoder, frozen, image)
        # Outside of jit, where a compiler may leave out what only rounds.
        return batch | {
            name: batch[name].astype(config.latent_dtype).astype(np.float32)
            for name in ("z_clean", "context")
            if name in batch
        }

    examples = datasets.dataset(config, "eval") if cache is None else cache.held_out
    asked = _looked_at(config, examples, encoder, frozen, on)
    scalars = _held_out(
        config,
        registry.base_objective(config, made, label_dropout=0.0),
        examples,
        on,
        lambda batch: prepare(batch, 0),
    )

    def validate(params, check):
        images = batching.map_rows(
            lambda row, **given: encoder.decode(
                frozen, made.sample(params, given, row, key, 1.0), row, key
            ),
            asked,
            batch_size=config.eval.batch_size,
            on=on,
            check=check,
        )
        columns = config.data.num_classes if "label" in asked else 10
        picture = image_grids.picture(images, min(columns, len(images)), _scale(config))
        return scalars(params, check), {"samples": picture}

    return _run(
        config,
        on,
        datasets.dataset(config, "train") if cache is None else cache.train,
        prepare=prepare,
        validate=validate,
        rate_floor_bpp=0.0,
    )


def context_of(config: Stage2Config | PixelDiffusionConfig, encoder: Codec, frozen, image) -> dict[str, Any]:
    """What a sample of stage 2 is given of a batch's clips: none of images."""
    if "context" in registry.conditions(config):
        assert isinstance(config, Stage2Config)
        return {"context": encoder.encode_context(frozen, image, config.context_frames)}
    return {}


def _looked_at(
    config: Stage2Config | PixelDiffusionConfig, examples, encoder: Codec, frozen, on: jax.sharding.Mesh
) -> dict[str, np.ndarray]:
    """What the pictures of training are asked to be, with their rows: all classes in turn,
    or what else there is of the first held-out examples."""
    names = registry.conditions(config).keys()
    row = np.arange(config.validation.num_images, dtype=np.int32)
    if names == {"label"}:
        return {"label": row % config.data.num_classes, "row": row}
    found = pipeline.assemble(examples, row % len(examples), row, len(row))
    if "context" in names - found.keys():
        found |= batching.map_rows(
            lambda image: context_of(config, encoder, frozen, image),
            {"image": found["image"]},
            batch_size=config.eval.batch_size,
            on=on,
        )
    return {name: found[name] for name in ("row", *names)}


def _scale(config: TrainConfig) -> int:
    """Small images are drawn larger, to be looked at."""
    return max(1, 48 // config.data.image_shape[-2])
