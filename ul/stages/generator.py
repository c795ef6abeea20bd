"""Build the stages that sample from conditions: base model, pixels and single stage."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ul.config import TrainConfig
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import predictions
from ul.diffusion.schedules import Schedule
from ul.diffusion.weightings import Sigmoid
from ul.models import parameters
from ul.objectives import base
from ul.stages import kinds, networks
from ul.stages.codec import Codec, LatentSampler
from ul.stages.conditions import Conditions
from ul.stages.stage import NetworkUse, Stage

# arguments(condition) -> the keyword arguments of the network.
ConditionArguments = Callable[[dict[str, Any]], dict[str, Any]]


def logsnr_shift(config: Any) -> float:
    """Return -log(latent_variance), the shift of log-SNRs given for latents of variance 1.

    Latents of variance v have v times the signal power. The shift is 0 before v is measured.
    """
    variance = getattr(config, "latent_variance", 1.0)
    return 0.0 if variance is None else -math.log(variance)


def _weighting(config: Any) -> Callable:
    """Return the weighting, whose bias is stated for latents of variance 1."""
    weighting = kinds.weighting(config.loss.weighting)
    if not isinstance(weighting, Sigmoid):
        return weighting
    bias = weighting.bias + logsnr_shift(config)
    return dataclasses.replace(weighting, bias=bias)


def latent_sampler(
    config: Any,
    denoise_latent: Callable,
    schedule: Schedule,
    latent_shape: tuple[int, ...],
    conditions: Conditions,
) -> LatentSampler:
    """Return a denoiser with the sampler and the guidance of its config.

    Raises:
      ConfigError: an unknown sampler, or a guidance interval that is empty.
    """
    shift = logsnr_shift(config)
    low, high = config.guidance.logsnr_low, config.guidance.logsnr_high
    if low >= high:
        raise ConfigError(
            f"guidance.logsnr_low must be below guidance.logsnr_high; got {low} and {high}."
        )
    sampling = config.sampling
    if sampling.logsnr_min is not None:
        lowest = max(sampling.logsnr_min + shift, schedule.logsnr_min)
        sampling = dataclasses.replace(sampling, logsnr_min=lowest)
    sampler = kinds.sampler(sampling, schedule)
    if sampler.logsnr_max != schedule.logsnr_max:
        raise ConfigError(
            "sampling.logsnr_max must be unset for latents, because the decoder takes them "
            f"at the end of the schedule, {schedule.logsnr_max:g}; got "
            f"{sampler.logsnr_max:g}."
        )
    return LatentSampler(
        denoise_latent=denoise_latent,
        sampler=sampler,
        latent_shape=latent_shape,
        null=conditions.null,
        interval=(low + shift, high + shift),
    )


def _denoiser(module: Any, arguments: ConditionArguments, training: bool) -> Callable:
    """Return `denoise(params, z_t, logsnr, condition, key) -> z_hat` of a network."""

    def denoise(params, z_t, logsnr, condition, key):
        v = networks.apply(
            module,
            params,
            z_t,
            logsnr,
            key=key if training else None,
            condition=arguments(condition),
        )
        return predictions.x_from_v(v, z_t, logsnr)

    return denoise


def _init(
    module: Any,
    latent_shape: tuple[int, ...],
    arguments: ConditionArguments,
    conditions: Conditions,
    root: jax.Array,
):
    """Return the parameters of a network."""
    z = jnp.zeros((1, *latent_shape), jnp.float32)
    logsnr = jnp.zeros((1,), jnp.float32)
    keys = {name: rng.stream(root, f"init_{name}") for name in ("params", "dropout")}
    return parameters.initialize(
        module, keys, z, logsnr, **arguments(conditions.zeros())
    )


def build(
    config: Any,
    name: str,
    use: NetworkUse,
    latent_shape: tuple[int, ...],
    conditions: Conditions,
    *,
    arguments: ConditionArguments = lambda condition: condition,
    codec: Codec | None = None,
) -> Stage:
    """Build a stage that trains one denoiser on latents, or on pixels as latents.

    name: name of the network. use.module(z_t, logsnr, **arguments(condition)) -> v.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    assert isinstance(config, TrainConfig)
    schedule = kinds.schedule("schedule", config.schedule)  # type: ignore[attr-defined]
    loss = config.loss  # type: ignore[attr-defined]
    weighting = _weighting(config)
    denoise = _denoiser(use.module, arguments, training=False)

    def objective(denoise_latent: Callable, label_dropout: float) -> Callable:
        return functools.partial(
            base.base_model_loss,
            denoise_latent=denoise_latent,
            schedule=schedule,
            weight=weighting,
            label_dropout=label_dropout,
            null=conditions.null,
        )

    return Stage(
        name=config.stage,
        image_shape=config.data.image_shape,
        latent_shape=latent_shape,
        num_classes=config.data.num_classes,
        evaluation=config.eval,
        init=functools.partial(_init, use.module, latent_shape, arguments, conditions),
        objective=objective(
            _denoiser(use.module, arguments, training=True), loss.label_dropout
        ),
        held_out_objective=objective(denoise, 0.0),
        rate_objective=functools.partial(
            base.base_model_rate,
            denoise_latent=denoise,
            schedule=schedule,
            null=conditions.null,
        ),
        batch={"z_clean": (latent_shape, jnp.float32), **conditions.batch},
        networks={name: use},
        conditions=conditions,
        sampling=config.sampling,
        weighting=weighting,
        codec=codec,
        sampler=latent_sampler(config, denoise, schedule, latent_shape, conditions),
    )
