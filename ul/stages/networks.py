"""The networks of a stage 1: Linen modules, and the functions that objectives call."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from ul.config import Stage1Config
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import gaussian, predictions
from ul.models import parameters
from ul.models.checks import shape_text
from ul.stages import kinds

# An encoder with variance starts at that of the fixed noise: log sigma_0^2 = -5.
INITIAL_LOG_VARIANCE = -5.0


@dataclasses.dataclass(frozen=True)
class Stage1Modules:
    """The Linen modules of a stage 1, and the shape of its latents.

    z_0_channels: channels of the decoder's latent input, including the noise-level channel
    if there is one.
    """

    encoder: Any
    decoder: Any
    prior: Any
    latent_shape: tuple[int, ...]
    z_0_channels: int

    def init(self, key, image_shape: tuple[int, ...]) -> dict:
        """Return the parameters of the networks that there are, by name."""
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *self.latent_shape), jnp.float32)
        z_0 = jnp.zeros((1, *self.latent_shape[:-1], self.z_0_channels), jnp.float32)
        logsnr, label = jnp.zeros((1,), jnp.float32), jnp.zeros((1,), jnp.int32)

        def init(name, module, *args):
            keys = {
                "params": rng.stream(key, name),
                "dropout": rng.stream(key, "dropout"),
            }
            return parameters.initialize(module, keys, *args)

        params = {"decoder": init("decoder", self.decoder, x, logsnr, z_0)}
        if self.encoder is not None:
            params["encoder"] = init("encoder", self.encoder, x)
        if self.prior is not None:
            params["prior"] = init("prior", self.prior, z, logsnr, label)
        return params


def stage1_modules(
    config: Stage1Config, *, has_variance: bool, is_single_stage: bool
) -> Stage1Modules:
    """Construct the networks of a stage 1.

    has_variance: the encoder also returns a log variance. is_single_stage: the prior sees
    labels, and the decoder sees the log-SNR of its latents as one more channel.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    image_shape = config.data.image_shape
    encoder = kinds.network("encoder", config.encoder, config.dtype)
    encoder.check("encoder", image_shape)
    decoder = kinds.network("decoder", config.decoder, config.dtype)
    decoder.check("decoder", image_shape)
    latent_shape = encoder.latent_shape(image_shape)
    if (grid := decoder.latent_grid(image_shape)) != latent_shape[:-1]:
        raise ConfigError(
            f"The encoder's latents and the decoder's transformer must have the same "
            f"grid; got {shape_text(latent_shape[:-1])} and {shape_text(grid)}. Change "
            "decoder.patch or decoder.channels."
        )
    prior = None
    if hasattr(config, "prior"):
        prior = kinds.network(
            "prior",
            config.prior,
            config.dtype,
            num_classes=config.data.num_classes if is_single_stage else 0,
            text_channels=0,
        )
        prior.check("prior", latent_shape)
    channels = latent_shape[-1]
    if has_variance:
        encoder = encoder.clone(latent_channels=2 * channels)
    return Stage1Modules(
        encoder, decoder, prior, latent_shape, channels + int(is_single_stage)
    )


def apply(module: Any, params, *args, key=None, condition=None):
    """Apply a module with dropout seeded by `key`, or without dropout if there is no key.

    `condition`: further arguments by name, such as labels.
    """
    if key is None and getattr(module, "level_dropout", None):
        module = module.clone(level_dropout=())
    if key is None and getattr(module, "dropout", None):
        module = module.clone(dropout=0.0)
    return module.apply(
        {"params": params},
        *args,
        **(condition or {}),
        rngs=None if key is None else {"dropout": key},
    )


class NetworkFunctions:
    """The modules as functions of the parameters, as the objectives call them.

    Denoisers return x or z, converted from the networks' v. Without `training` there is
    no dropout and keys are ignored. x [B, *grid, C] is in -1..1; latents are
    [B, *g, c]; logsnr is [B]; a prediction has the shape of its noisy input.
    """

    def __init__(self, modules: Stage1Modules, training: bool):
        self._modules, self._training = modules, training

    def _key(self, key):
        return key if self._training else None

    def encode(self, params, x):
        """Return the encoder's output for x [B, *grid, C] in -1..1."""
        return self._modules.encoder.apply({"params": params["encoder"]}, x)

    def encode_normal(self, params, x):
        """Return mean and log variance [B, *g, c] of an encoder with variance."""
        output = self.encode(params, x).astype(jnp.float32)
        mean, log_variance = jnp.split(output, 2, axis=-1)
        return mean, log_variance + INITIAL_LOG_VARIANCE

    def denoise_latent(self, params, z_t, logsnr, key):
        """Return z_hat of the prior, like z_t [B, *g, c]."""
        return self.denoise_latent_with_condition(params, z_t, logsnr, None, key)

    def denoise_latent_with_condition(self, params, z_t, logsnr, condition, key):
        """Return z_hat of a prior that sees class labels, like z_t [B, *g, c]."""
        module, key = self._modules.prior, self._key(key)
        v = apply(module, params["prior"], z_t, logsnr, key=key, condition=condition)
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_image(self, params, x_t, logsnr, z_0, key):
        """Return x_hat of the decoder, like x_t [B, *grid, C]."""
        module, key = self._modules.decoder, self._key(key)
        v = apply(module, params["decoder"], x_t, logsnr, z_0, key=key)
        return predictions.x_from_v(v, x_t, logsnr)

    def denoise_with_latent_noise_level(self, params, x_t, logsnr, z_0, logsnr_0, key):
        """Return x_hat of a decoder that sees the log-SNR of z_0 as one more channel."""
        level = gaussian.expand(logsnr_0 / 5.0, z_0)
        plane = jnp.broadcast_to(level, z_0[..., :1].shape)
        z_0_and_level = jnp.concatenate([z_0, plane], axis=-1)
        return self.denoise_image(params, x_t, logsnr, z_0_and_level, key)

    def decode(self, params, z_0, key, *, image_shape):
        """Return x_hat [B, *image_shape] of the decoder in one call, from z_0 alone."""
        x_t = jnp.zeros((len(z_0), *image_shape), jnp.float32)
        logsnr = jnp.zeros((len(z_0),), jnp.float32)
        module, key = self._modules.decoder, self._key(key)
        return apply(module, params["decoder"], x_t, logsnr, z_0, key=key)
