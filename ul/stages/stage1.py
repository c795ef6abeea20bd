"""Stage 1 and what it is compared with: from settings to networks and an objective."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp

from ul import config as configs
from ul.core.errors import ConfigError
from ul.diffusion import schedules, weightings
from ul.objectives import ablations, joint, single_stage
from ul.stages import codec, kl_autoencoder, parts
from ul.stages.networks import Modules, Networks, modules


@dataclasses.dataclass(frozen=True)
class Diffusions:
    """A prior and a decoder that both are UL's: what a likelihood bound needs."""

    networks: joint.Networks
    prior_schedule: schedules.Schedule
    decoder_schedule: schedules.Schedule


@dataclasses.dataclass(frozen=True)
class Stage1:
    """A stage 1, ready to train and to evaluate.

    objective(params, batch, key, step) -> Terms; None of what is not trained here.
    """

    modules: Modules | kl_autoencoder.Modules
    codec: codec.Codec
    objective: Callable | None
    diffusions: Diffusions | None = None


def _sampled(config, denoise_image: Callable) -> Callable:
    """`decode(params, z_0, row, key) -> x` by the whole sampler."""
    return functools.partial(
        codec.sample_image,
        denoise_image,
        schedule=parts.schedule("decoder_schedule", config.decoder_schedule),
        sampling=parts.sampling("sampling", config.sampling),
        image_shape=config.data.image_shape,
    )


def _weighted(config) -> dict:
    """The decoder's loss of UL, and the ramp of the prior's gradient."""
    return dict(
        decoder_schedule=parts.schedule("decoder_schedule", config.decoder_schedule),
        decoder_weight=weightings.Sigmoid(config.loss.bias, config.loss.factor),
    )


def _codec(config, made: Modules, logsnr: float, encode, decoder) -> codec.Codec:
    """A deterministic encoder, and the fixed noise."""
    return codec.Codec(
        encoder=encode,
        latent=lambda params, x, row, key: encode(params, x),
        decoder=decoder,
        latent_logsnr=logsnr,
        image_shape=config.data.image_shape,
        latent_shape=made.latent_shape,
        # A decoder in one call has no schedule.
        sampled=hasattr(config, "decoder_schedule"),
        exact=True,
    )


def _normal_codec(config, made: Modules, logsnr: float, nets, decoder) -> codec.Codec:
    """An encoder with a variance of its own, below the fixed noise."""
    exact = _codec(
        config,
        made,
        logsnr,
        lambda params, x: nets.encode_normal(params, x)[0],
        decoder,
    )
    return dataclasses.replace(
        exact, latent=codec.normal(nets.encode_normal), exact=False
    )


def _diffusions(config, nets: Networks) -> Diffusions:
    return Diffusions(
        joint.Networks(nets.encode, nets.denoise_latent, nets.denoise_image),
        parts.schedule("prior_schedule", config.prior_schedule),
        parts.schedule("decoder_schedule", config.decoder_schedule),
    )


def _joint(config: configs.JointConfig, made: Modules, nets: Networks) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        joint.joint,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    logsnr = both.prior_schedule.logsnr_max
    decoder = _sampled(config, nets.denoise_image)
    autoencoder = _codec(config, made, logsnr, nets.encode, decoder)
    return Stage1(made, autoencoder, objective, both)


def _detached_prior(config: configs.DetachedPriorConfig, made, nets) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        ablations.detached_prior,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        kl_weight=config.loss.kl_weight,
        **_weighted(config),
    )
    logsnr = both.prior_schedule.logsnr_max
    decoder = _sampled(config, nets.denoise_image)
    autoencoder = _codec(config, made, logsnr, nets.encode, decoder)
    return Stage1(made, autoencoder, objective, both)


def _learned_variance(config: configs.LearnedVarianceConfig, made, nets) -> Stage1:
    both = _diffusions(config, nets)
    objective = functools.partial(
        ablations.learned_variance,
        encode=nets.encode_normal,
        networks=both.networks,
        prior_schedule=both.prior_schedule,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _normal_codec(
        config,
        made,
        both.prior_schedule.logsnr_max,
        nets,
        _sampled(config, nets.denoise_image),
    )
    return Stage1(made, autoencoder, objective)


def _normal_prior(config: configs.NormalPriorConfig, made, nets) -> Stage1:
    objective = functools.partial(
        ablations.normal_prior,
        encode=nets.encode,
        denoise_image=nets.denoise_image,
        latent_logsnr=config.latent_logsnr,
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _codec(
        config,
        made,
        config.latent_logsnr,
        nets.encode,
        _sampled(config, nets.denoise_image),
    )
    return Stage1(made, autoencoder, objective)


def _mse_decoder(config: configs.MseDecoderConfig, made, nets) -> Stage1:
    schedule = parts.schedule("prior_schedule", config.prior_schedule)
    decode = functools.partial(nets.decode, image_shape=config.data.image_shape)
    objective = functools.partial(
        ablations.mse_decoder,
        encode=nets.encode,
        denoise_latent=nets.denoise_latent,
        decode=decode,
        prior_schedule=schedule,
        precision=config.loss.precision,
        ramp_steps=config.loss.ramp_steps,
    )
    autoencoder = _codec(
        config,
        made,
        schedule.logsnr_max,
        nets.encode,
        lambda params, z_0, row, key: decode(params, z_0, None),
    )
    return Stage1(made, autoencoder, objective)


def _kl_autoencoder(config: configs.KlAutoencoderConfig, made, nets) -> Stage1:
    decode = functools.partial(nets.decode, image_shape=config.data.image_shape)
    objective = functools.partial(
        ablations.kl_autoencoder,
        encode=nets.encode_normal,
        decode=decode,
        precision=config.loss.precision,
        kl_weight=config.loss.kl_weight,
    )
    autoencoder = _normal_codec(
        config,
        made,
        config.latent_logsnr,
        nets,
        lambda params, z_0, row, key: decode(params, z_0, None),
    )
    return Stage1(made, autoencoder, objective)


def _single(config: configs.SingleStageConfig, made, nets) -> Stage1:
    schedule = parts.schedule("prior_schedule", config.prior_schedule)
    if not isinstance(schedule, schedules.Linear):
        raise ConfigError(
            "prior_schedule.kind must be linear in a single stage: each example's ends "
            "at its own noise"
        )

    def denoise_image(params, x_t, logsnr, z_0, key):
        least = jnp.full((len(z_0),), schedule.logsnr_max, jnp.float32)
        return nets.denoise_with_latent_noise_level(
            params, x_t, logsnr, z_0, least, key
        )

    least = parts.of_kind("least_noise", single_stage.LEAST_NOISE, config.least_noise)
    # Bits are those of the z_0 that is decoded, so an evaluation has its noise.
    objective = functools.partial(
        single_stage.single,
        encode=nets.encode,
        denoise_latent=nets.denoise_labelled,
        denoise_image=nets.denoise_with_latent_noise_level,
        least=least if nets.training else single_stage.Fixed(),
        prior_schedule=schedule,
        label_dropout=config.loss.label_dropout if nets.training else 0.0,
        null={"label": config.data.num_classes},
        ramp_steps=config.loss.ramp_steps,
        **_weighted(config),
    )
    autoencoder = _codec(
        config, made, schedule.logsnr_max, nets.encode, _sampled(config, denoise_image)
    )
    return Stage1(made, autoencoder, objective)


BUILDERS: dict[type, Callable[..., Stage1]] = {
    configs.JointConfig: _joint,
    configs.NormalPriorConfig: _normal_prior,
    configs.MseDecoderConfig: _mse_decoder,
    configs.LearnedVarianceConfig: _learned_variance,
    configs.DetachedPriorConfig: _detached_prior,
    configs.KlAutoencoderConfig: _kl_autoencoder,
    configs.SingleStageConfig: _single,
}


def stage1(config: configs.AutoencoderConfig, *, training: bool = False) -> Stage1:
    """A stage 1 from its settings, for evaluations or for training.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    if isinstance(config, configs.ExternalConfig):
        networks = kl_autoencoder.modules(config)
        return Stage1(networks, kl_autoencoder.codec(config, networks), objective=None)
    assert isinstance(config, configs.Stage1Config)
    made = modules(config)
    return BUILDERS[type(config)](config, made, Networks(made, training))
