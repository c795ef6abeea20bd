"""What images are sampled from, conditions in: stage 2, or what stands in its place."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ul import config as configs
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import predictions, weightings
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.objectives import base
from ul.stages import parts
from ul.stages.codec import Codec, LatentSampler
from ul.stages.networks import Networks, modules
from ul.stages.stage1 import stage1


def base_module(
    config: configs.Stage2Config | configs.PixelDiffusionConfig,
) -> ViT | UViT:
    """The network of stage 2."""
    if isinstance(config, configs.PixelDiffusionConfig):
        decoder = parts.network("decoder", UViT, config.decoder, config.dtype)
        parts.grid_of(decoder, config.data.image_shape)
        parts.check_factorised("decoder", decoder, config.data.image_shape)
        return decoder
    made = parts.network(
        "base",
        ViT,
        config.base,
        config.dtype,
        num_classes=config.data.num_classes if "label" in conditions(config) else 0,
        text_channels=config.data.text[1],
    )
    parts.check_levels("base", made, config.latent_shape)
    told = config.data.text != (0, 0)
    parts.check_factorised("base", made, config.latent_shape, told)
    image = config.data.image_shape
    if config.context_frames and not (
        len(image) == 4 and config.context_frames < image[0]
    ):
        raise ConfigError(
            f"context_frames is {config.context_frames}; it is of clips, fewer than their "
            f"frames, and data.image_shape is {image}"
        )
    return made


def init_base(config: configs.Stage2Config | configs.PixelDiffusionConfig, key) -> dict:
    """Parameters of the network of stage 2."""
    module = base_module(config)
    z = jnp.zeros((1, *latent_shape(config)), jnp.float32)
    logsnr = jnp.zeros((1,), jnp.float32)
    keys = {name: rng.stream(key, f"init_{name}") for name in ("params", "dropout")}
    condition: dict[str, Any] = {
        name: jnp.zeros((1, *field.shape), field.dtype)
        for name, field in conditions(config).items()
    }
    if isinstance(config, configs.PixelDiffusionConfig):
        condition = _label_grid(config, module, condition["label"])
    return module.init(keys, z, logsnr, **condition)["params"]


class Field(NamedTuple):
    """One entry of a condition: its shape and type in an example, and its null value."""

    shape: tuple[int, ...]
    dtype: Any
    null: int | float


def conditions(config: configs.GeneratorConfig) -> dict[str, Field]:
    """What a sample can be asked to be: with text or first frames, nothing else."""
    if config.data.text != (0, 0):
        return {
            "text": Field(config.data.text, jnp.float16, 0.0),
            "text_length": Field((), jnp.int32, 0),
        }
    if isinstance(config, configs.Stage2Config) and config.context_frames:
        return {"context": Field(config.latent_shape, jnp.float32, 0.0)}
    return {"label": Field((), jnp.int32, config.data.num_classes)}


def latent_shape(
    config: configs.Stage2Config | configs.PixelDiffusionConfig,
) -> tuple[int, ...]:
    """The shape of what is diffused."""
    if isinstance(config, configs.PixelDiffusionConfig):
        return config.data.image_shape
    return config.latent_shape


def _label_grid(config: configs.PixelDiffusionConfig, module, label) -> dict:
    """The label as z_0, where the UViT has its latents: one-hot on every cell of its grid."""
    grid = parts.grid_of(module, config.data.image_shape)
    classes = config.data.num_classes + 1
    one_hot = (label[:, None] == jnp.arange(classes)[None]).astype(jnp.float32)
    one_hot = one_hot.reshape(len(label), *(1,) * len(grid), classes)
    return {"z_0": jnp.broadcast_to(one_hot, (len(label), *grid, classes))}


def _denoiser(config, training: bool) -> Callable:
    """denoise(params, z_t, logsnr, condition, key) -> z_hat."""
    if isinstance(config, configs.SingleStageConfig):
        labelled = Networks(modules(config), training).denoise_labelled
        return lambda params, *rest: labelled({"prior": params}, *rest)
    module = base_module(config)

    def denoise(params, z_t, logsnr, condition, key):
        key = key if training else None
        if isinstance(module, UViT):
            condition = _label_grid(config, module, condition["label"])
        v = parts.apply(module, params, z_t, logsnr, key=key, condition=condition)
        return predictions.x_from_v(v, z_t, logsnr)

    return denoise


def latent_sampler(
    config: configs.GeneratorConfig, *, training: bool = False
) -> LatentSampler:
    """The base model with its sampler, for evaluations or for training."""
    low, high = config.guidance.logsnr_low, config.guidance.logsnr_high
    if low >= high:
        raise ConfigError(f"guidance.logsnr_low {low} must be below logsnr_high {high}")
    if isinstance(config, configs.SingleStageConfig):
        where, shape = "prior_schedule", modules(config).latent_shape
    else:
        where, shape = "schedule", latent_shape(config)
    return LatentSampler(
        denoise_latent=_denoiser(config, training),
        schedule=parts.schedule(where, getattr(config, where)),
        latent_shape=shape,
        null={name: field.null for name, field in conditions(config).items()},
        interval=(low, high),
        sampling=parts.sampling("sampling", config.sampling),
    )


def base_objective(config, made: LatentSampler, label_dropout: float):
    """`objective(params, batch, key, step) -> Terms` of stage 2."""
    return functools.partial(
        base.base,
        denoise_latent=made.denoise_latent,
        schedule=made.schedule,
        weight=weightings.Sigmoid(config.loss.bias),
        label_dropout=label_dropout,
        null=made.null,
    )


def base_rate(made: LatentSampler):
    """`objective(params, batch, key, step) -> Terms` of the unweighted bound."""
    return functools.partial(
        base.base_rate,
        denoise_latent=made.denoise_latent,
        schedule=made.schedule,
        null=made.null,
    )


def pixel_codec(config: configs.PixelDiffusionConfig) -> Codec:
    """Pixels as their own latents: what stage 2 needs below it, without parameters."""
    return Codec(
        encoder=lambda params, x: x,
        latent=lambda params, x, row, key: x,
        decoder=lambda params, z_0, row, key: z_0,
        latent_logsnr=parts.schedule("schedule", config.schedule).logsnr_max,
        image_shape=config.data.image_shape,
        latent_shape=config.data.image_shape,
        sampled=True,
        exact=True,
    )


def check_stage1(
    config: configs.Stage2Config, below: configs.AutoencoderConfig
) -> None:
    """Stage 2 takes what stage 1 gives: latents, images, the least noise.

    Raises:
      ConfigError: with both sides.
    """
    found = stage1(below).codec
    least = parts.schedule("schedule", config.schedule).logsnr_max
    pairs = (
        ("latent_shape", config.latent_shape, found.latent_shape),
        ("data.image_shape", config.data.image_shape, found.image_shape),
        ("schedule.logsnr_max", least, found.latent_logsnr),
    )
    for key, wanted, given in pairs:
        if wanted != given:
            raise ConfigError(
                f"{key} is {wanted} but stage 1 in {config.stage1.workdir} gives {given}"
            )
