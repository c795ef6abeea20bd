"""From settings to objects: networks, schedules, objectives, samplers.

With `runs.py` the only reader of configs: settings in, objects that know none out.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from ul.config import Base, Joint, construct
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import predictions, samplers, schedules, weightings
from ul.evals.codec import Codec, LatentSampler, Sampling
from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.objectives import base, joint

SCHEDULES = {"linear": schedules.Linear, "cosine": schedules.Cosine}
ATTENTION = ("xla", "cudnn")


def plain(config) -> dict:
    """An ml_collections ConfigDict, or JSON, as nested dicts with tuples."""
    config = config.to_dict() if hasattr(config, "to_dict") else config

    def convert(value):
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return tuple(map(convert, value)) if isinstance(value, list | tuple) else value

    return convert(config)


def of_kind(where: str, kinds: dict, section: dict, **given) -> Any:
    """The object that a section with a `kind` describes."""
    settings = dict(section)
    kind = settings.pop("kind", None)
    if kind not in kinds:
        raise ConfigError(f"{where}.kind is {kind!r}; known are {sorted(kinds)}")
    return construct(where, kinds[kind], settings, **given)


def schedule(where: str, section: dict) -> schedules.Schedule:
    """A noise schedule whose ends are in order."""
    made = of_kind(where, SCHEDULES, section)
    if made.logsnr_max <= made.logsnr_min:
        raise ConfigError(
            f"{where}.logsnr_max {made.logsnr_max} must be above logsnr_min {made.logsnr_min}"
        )
    return made


def sampling(where: str, settings) -> Sampling:
    """A sampler that exists."""
    if settings.method not in samplers.METHODS:
        raise ConfigError(
            f"{where}.method is {settings.method!r}; known are {sorted(samplers.METHODS)}"
        )
    return Sampling(settings.method, settings.num_steps)


def _network(where: str, module, section: dict, dtype: str, **given):
    made = construct(where, module, section, dtype=jnp.dtype(dtype), **given)
    for key, value in section.items():
        numbers = value if isinstance(value, tuple) else (value,)
        least = 0 if key == "dropout" else 1
        counts = [n for n in numbers if type(n) in (int, float)]  # a bool is no count
        if any(n < least for n in counts):
            raise ConfigError(
                f"{where}.{key} is {value!r}; it must be at least {least}"
            )
    if getattr(made, "dropout", 0.0) >= 1.0:
        raise ConfigError(f"{where}.dropout is {made.dropout}; it must be under 1")
    head_dim = getattr(made, "head_dim", None)
    if head_dim is not None:
        widths = getattr(made, "widths", None) or (made.width,)
        for width in widths:
            if head_dim < 1 or width % head_dim or width % 2:
                raise ConfigError(
                    f"{where}: width {width} is not an even multiple of head_dim {head_dim}"
                )
        if made.attention not in ATTENTION:
            raise ConfigError(
                f"{where}.attention is {made.attention!r}; known are {list(ATTENTION)}"
            )
    return made


@dataclasses.dataclass(frozen=True)
class Modules:
    """The Linen modules of stage 1, and the shape of its latents."""

    encoder: Encoder
    prior: ViT
    decoder: UViT
    latent_shape: tuple[int, int, int]

    def init(self, key, image_shape: tuple[int, int, int]) -> dict:
        """Parameters of the three networks."""
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *self.latent_shape), jnp.float32)
        logsnr = jnp.zeros((1,), jnp.float32)

        def keys(name):
            return {
                "params": rng.stream(key, name),
                "dropout": rng.stream(key, "dropout"),
            }

        return {
            "encoder": self.encoder.init(keys("encoder"), x)["params"],
            "prior": self.prior.init(keys("prior"), z, logsnr)["params"],
            "decoder": self.decoder.init(keys("decoder"), x, logsnr, z)["params"],
        }


def modules(config: Joint) -> Modules:
    """The networks of stage 1.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    encoder = _network("encoder", Encoder, config.encoder, config.dtype)
    prior = _network("prior", ViT, config.prior, config.dtype, num_classes=0)
    decoder = _network("decoder", UViT, config.decoder, config.dtype)
    height, width, _ = config.data.image_shape
    if len(encoder.channels) != len(encoder.blocks):
        raise ConfigError(
            f"encoder.channels {encoder.channels} and encoder.blocks {encoder.blocks} "
            "must have the same length"
        )
    down = encoder.patch * 2 ** (len(encoder.channels) - 1)
    grid_of_decoder = decoder.patch * 2 ** len(decoder.channels)
    for name, factor in (("encoder", down), ("decoder", grid_of_decoder)):
        if height % factor or width % factor:
            raise ConfigError(
                f"data.image_shape {height}x{width} is not divisible by the {name}'s "
                f"downsampling {factor}"
            )
    if down != grid_of_decoder:
        raise ConfigError(
            f"the encoder downsamples {down}x but the decoder's transformer is at "
            f"{grid_of_decoder}x; change decoder.patch or decoder.channels"
        )
    shape = (height // down, width // down, encoder.latent_channels)
    _check_levels("prior", prior, shape)
    return Modules(encoder, prior, decoder, shape)


def _transformers(config: Joint | Base) -> list[str]:
    return ["prior", "decoder"] if isinstance(config, Joint) else ["base"]


def uses_cudnn(config: Joint | Base) -> bool:
    """Some network asks for attention that only a GPU has."""
    sections = (getattr(config, name) for name in _transformers(config))
    return any(section.get("attention") == "cudnn" for section in sections)


def portable(config: Joint | Base) -> Joint | Base:
    """The same networks with attention that runs on every device."""
    return dataclasses.replace(
        config,
        **{n: getattr(config, n) | {"attention": "xla"} for n in _transformers(config)},
    )


def _check_levels(where: str, vit: ViT, shape: tuple[int, int, int]) -> None:
    if len(vit.widths) != len(vit.depths) or not vit.widths:
        raise ConfigError(
            f"{where}.widths and {where}.depths must have the same length"
        )
    if any(depth < 2 for depth in vit.depths[:-1]):
        raise ConfigError(
            f"{where}.depths {vit.depths}: an outer level needs 2 blocks, one on each way"
        )
    merge = 2 ** (len(vit.widths) - 1)
    if shape[0] % merge or shape[1] % merge:
        raise ConfigError(
            f"latents of {shape[0]}x{shape[1]} cannot be merged {merge}x for the "
            f"{len(vit.widths)} levels of {where}.widths"
        )


def _apply(module, params, *args, key=None):
    """The module with dropout seeded by `key`; without a key, without dropout."""
    if key is None and getattr(module, "dropout", 0.0):
        module = module.clone(dropout=0.0)
    return module.apply(
        {"params": params}, *args, rngs=None if key is None else {"dropout": key}
    )


def networks(made: Modules, dropout: bool) -> joint.Networks:
    """Stage 1's networks as denoisers: v outputs become x."""

    def denoise_latent(params, z_t, logsnr, key):
        v = _apply(
            made.prior, params["prior"], z_t, logsnr, key=key if dropout else None
        )
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_image(params, x_t, logsnr, z_0, key):
        key = key if dropout else None
        v = _apply(made.decoder, params["decoder"], x_t, logsnr, z_0, key=key)
        return predictions.x_from_v(v, x_t, logsnr)

    return joint.Networks(
        encode=lambda params, x: made.encoder.apply({"params": params["encoder"]}, x),
        denoise_latent=denoise_latent,
        denoise_image=denoise_image,
    )


def codec(config: Joint, *, dropout: bool = False) -> Codec:
    """Encoder and decoder of stage 1 with their sampler; `dropout` is for training."""
    made = modules(config)
    return Codec(
        networks=networks(made, dropout),
        prior_schedule=schedule("prior_schedule", config.prior_schedule),
        decoder_schedule=schedule("decoder_schedule", config.decoder_schedule),
        image_shape=config.data.image_shape,
        latent_shape=made.latent_shape,
        sampling=sampling("sampling", config.sampling),
    )


def joint_objective(config: Joint, made: Codec):
    """`objective(params, batch, key, step) -> Terms` of stage 1."""
    return functools.partial(
        joint.joint,
        networks=made.networks,
        prior_schedule=made.prior_schedule,
        decoder_schedule=made.decoder_schedule,
        decoder_weight=weightings.Sigmoid(config.loss.bias, config.loss.factor),
        ramp_steps=config.loss.ramp_steps,
    )


def base_module(config: Base) -> ViT:
    """The base model of stage 2."""
    made = _network(
        "base", ViT, config.base, config.dtype, num_classes=config.data.num_classes
    )
    _check_levels("base", made, config.latent_shape)
    return made


def _denoise_base(module: ViT, dropout: bool):
    def denoise_latent(params, z_t, logsnr, label, key):
        key = key if dropout else None
        v = _apply(module, params, z_t, logsnr, label, key=key)
        return predictions.x_from_v(v, z_t, logsnr)

    return denoise_latent


def latent_sampler(config: Base, *, dropout: bool = False) -> LatentSampler:
    """Stage 2's base model with its sampler; `dropout` is for training."""
    low, high = config.guidance.logsnr_low, config.guidance.logsnr_high
    if low >= high:
        raise ConfigError(f"guidance.logsnr_low {low} must be below logsnr_high {high}")
    return LatentSampler(
        denoise_latent=_denoise_base(base_module(config), dropout),
        schedule=schedule("schedule", config.schedule),
        latent_shape=config.latent_shape,
        null_label=config.data.num_classes,
        interval=(low, high),
        sampling=sampling("sampling", config.sampling),
    )


def base_objective(config: Base, made: LatentSampler, label_dropout: float):
    """`objective(params, batch, key, step) -> Terms` of stage 2."""
    return functools.partial(
        base.base,
        denoise_latent=made.denoise_latent,
        schedule=made.schedule,
        weight=weightings.Sigmoid(config.loss.bias),
        label_dropout=label_dropout,
        null_label=made.null_label,
    )


def check_stage1(config: Base, stage1: Joint) -> None:
    """Stage 2 takes what stage 1 gives: latents, images, the least noise.

    Raises:
      ConfigError: with both sides.
    """
    found = codec(stage1)
    pairs = (
        ("latent_shape", config.latent_shape, found.latent_shape),
        ("data.image_shape", config.data.image_shape, stage1.data.image_shape),
        ("schedule.logsnr_max", schedule("schedule", config.schedule).logsnr_max,
         found.prior_schedule.logsnr_max),
    )  # fmt: skip
    for key, wanted, given in pairs:
        if wanted != given:
            raise ConfigError(
                f"{key} is {wanted} but stage 1 in {config.stage1.workdir} gives {given}"
            )
