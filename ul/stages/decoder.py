"""Stage "decoder": a new diffusion decoder on the frozen encoder of another run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ul.config import AutoencoderConfig, TrainConfig
from ul.config.schema import DecoderLoss, FrozenStage1, InitialWeights, Shape
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion.samplers import Sampler
from ul.models.checks import shape_text
from ul.objectives import joint
from ul.objectives.decoder import decoder_loss, latent_rate
from ul.stages import kinds
from ul.stages.codec import DiffusionDecoder
from ul.stages.conditions import Conditions
from ul.stages.networks import NetworkFunctions, Stage1Modules
from ul.stages.stage import (
    JointDiffusion,
    NetworkUse,
    SeparateDecoder,
    Stage,
    StageKind,
)


@dataclasses.dataclass(frozen=True)
class SeparateDecoderConfig(AutoencoderConfig, TrainConfig):
    """Settings of any decoder that is trained on a frozen encoder.

    latent_shape, latent_logsnr: shape and log-SNR of the latents; stage 1 must have them.
    """

    stage1: FrozenStage1
    latent_shape: Shape
    latent_logsnr: float
    decoder: dict
    decoder_schedule: dict


@dataclasses.dataclass(frozen=True)
class DecoderConfig(SeparateDecoderConfig):
    """Settings of a new diffusion decoder on a frozen encoder.

    init: weights to start from instead of random ones, for example those of the decoder
      that was trained together with the encoder.
    """

    loss: DecoderLoss
    init: InitialWeights = InitialWeights()


def decoder_modules(config: SeparateDecoderConfig) -> Stage1Modules:
    """Construct the decoder.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    image_shape, latent_shape = config.data.image_shape, config.latent_shape
    module = kinds.network("decoder", config.decoder, config.dtype)
    module.check("decoder", image_shape)
    if (grid := module.latent_grid(image_shape)) != latent_shape[:-1]:
        raise ConfigError(
            "latent_shape and the decoder's transformer must have the same grid; got "
            f"{shape_text(latent_shape[:-1])} and {shape_text(grid)}. Change decoder.patch "
            "or decoder.channels."
        )
    return Stage1Modules(None, module, None, latent_shape, latent_shape[-1])


def build(config: DecoderConfig) -> Stage:
    """Build the decoder with its objective and sampler.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    modules = decoder_modules(config)
    schedule = kinds.schedule("decoder_schedule", config.decoder_schedule)
    weighting = kinds.weighting(config.loss.weighting)

    def objective(training: bool):
        return functools.partial(
            decoder_loss,
            denoise_image=NetworkFunctions(modules, training).denoise_image,
            latent_logsnr=config.latent_logsnr,
            decoder_schedule=schedule,
            decoder_weight=weighting,
        )

    stage = decoder_stage(config, modules, kinds.sampler(config.sampling, schedule))
    return dataclasses.replace(
        stage,
        objective=objective(training=True),
        held_out_objective=objective(training=False),
        weighting=weighting,
    )


def decoder_stage(
    config: SeparateDecoderConfig, modules: Stage1Modules, sampler: Sampler
) -> Stage:
    """Return the stage of a decoder, still without its objectives."""
    image_shape, latent_shape = config.data.image_shape, config.latent_shape

    def init(root: jax.Array):
        return modules.init(rng.stream(root, "init"), image_shape)

    denoise_image = NetworkFunctions(modules, training=False).denoise_image
    decoder = DiffusionDecoder(denoise_image, sampler, image_shape)
    return Stage(
        name=config.stage,
        image_shape=image_shape,
        latent_shape=latent_shape,
        num_classes=config.data.num_classes,
        evaluation=config.eval,
        init=init,
        objective=None,
        held_out_objective=None,
        batch={
            "image": (image_shape, jnp.uint8),
            "z_clean": (latent_shape, jnp.float32),
        },
        networks={
            "decoder": NetworkUse(
                modules.decoder,
                image_shape,
                latent_shape[-1],
                needs_input_gradient=False,
            )
        },
        conditions=Conditions(),
        sampling=config.sampling,
        separate_decoder=SeparateDecoder(decoder, config.latent_logsnr),
    )


def combine(stage1: Stage, decoder_stage: Stage) -> Stage:
    """Return the autoencoder of stage 1 with the decoder of `decoder_stage` in its place.

    Parameters are looked up by network name. The rate can be measured if stage 1 has a
    `latent_prior`.
    """
    assert stage1.codec is not None and decoder_stage.separate_decoder is not None
    decoder = decoder_stage.separate_decoder.decoder
    codec = dataclasses.replace(stage1.codec, decoder=decoder, is_diffusion=True)
    schedule = decoder.sampler.schedule
    diffusion, objective, prior = None, None, stage1.latent_prior
    if prior is not None and decoder_stage.distillation is not None:
        # A student jumps to the ends of its segments, so it has no likelihood bound.
        objective = functools.partial(
            latent_rate,
            encode=codec.encoder,
            denoise_latent=prior.denoise_latent,
            prior_schedule=prior.schedule,
        )
    elif prior is not None:
        assert decoder_stage.weighting is not None
        networks = joint.JointNetworks(
            codec.encoder, prior.denoise_latent, decoder.denoise_image
        )
        diffusion = JointDiffusion(networks, prior.schedule, schedule)
        objective = functools.partial(
            joint.joint_loss,
            networks=networks,
            prior_schedule=prior.schedule,
            decoder_schedule=schedule,
            decoder_weight=decoder_stage.weighting,
            ramp_steps=0,
        )
    return dataclasses.replace(
        decoder_stage,
        codec=codec,
        joint_diffusion=diffusion,
        latent_prior=stage1.latent_prior,
        objective=None,
        held_out_objective=objective,
        networks={**stage1.networks, "decoder": decoder_stage.networks["decoder"]},
        batch=stage1.batch,
    )


STAGE = StageKind("decoder", DecoderConfig, build)
