"""Baseline: diffusion on pixels, without latents; the decoder's network sees labels."""

import dataclasses

import jax.numpy as jnp

from ul.config import GeneratorConfig, TrainConfig
from ul.config.schema import GuidanceConfig, Stage2Loss
from ul.stages import generator, kinds
from ul.stages.codec import Codec
from ul.stages.conditions import label_conditions
from ul.stages.stage import NetworkUse, Stage, StageKind


@dataclasses.dataclass(frozen=True)
class PixelDiffusionConfig(TrainConfig, GeneratorConfig):
    """Settings of diffusion on pixels."""

    decoder: dict
    schedule: dict
    loss: Stage2Loss
    guidance: GuidanceConfig


def _identity_codec(image_shape: tuple[int, ...], latent_logsnr: float) -> Codec:
    """Return a codec whose latents are the pixels, without parameters."""
    return Codec(
        encoder=lambda params, x: x,
        latent=lambda params, x, row, key: x,
        decoder=lambda params, z_0, row, key: z_0,
        latent_logsnr=latent_logsnr,
        image_shape=image_shape,
        latent_shape=image_shape,
        is_diffusion=True,
        is_deterministic=True,
    )


def build(config: PixelDiffusionConfig) -> Stage:
    """Build a denoiser of pixels with its objective and sampler.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    shape, num_labels = config.data.image_shape, config.data.num_classes + 1
    module = kinds.network("decoder", config.decoder, config.dtype)
    module.check("decoder", shape)
    grid = module.latent_grid(shape)

    def one_hot_labels(condition):
        """Return labels in place of z_0: one-hot in every cell of the network's grid."""
        label = condition["label"]
        one_hot = (label[:, None] == jnp.arange(num_labels)[None]).astype(jnp.float32)
        one_hot = one_hot.reshape(len(label), *(1,) * len(grid), num_labels)
        return {"z_0": jnp.broadcast_to(one_hot, (len(label), *grid, num_labels))}

    use = NetworkUse(module, shape, num_labels, needs_input_gradient=False)
    schedule = kinds.schedule("schedule", config.schedule)
    return generator.build(
        config,
        "decoder",
        use,
        shape,
        label_conditions(config.data.num_classes),
        arguments=one_hot_labels,
        codec=_identity_codec(shape, schedule.logsnr_max),
    )


STAGE = StageKind("pixel_diffusion", PixelDiffusionConfig, build)
