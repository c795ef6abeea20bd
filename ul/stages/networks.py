"""The networks of a stage 1: from settings to modules, and as the objectives call them."""

import dataclasses

import jax.numpy as jnp

from ul import config as configs
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import gaussian, predictions
from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT
from ul.stages import parts

# A learned encoder variance starts at the fixed noise's, log sigma_0^2 = -5.
INITIAL_LOG_VARIANCE = -5.0


@dataclasses.dataclass(frozen=True)
class Modules:
    """The Linen modules of a stage 1, and the shape of its latents.

    decoder_sees: channels the decoder gets, the latent's and what it is told besides.
    """

    encoder: Encoder
    decoder: UViT
    prior: ViT | None
    latent_shape: tuple[int, ...]
    decoder_sees: int

    def init(self, key, image_shape: tuple[int, ...]) -> dict:
        """Parameters of the networks there are."""
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *self.latent_shape), jnp.float32)
        z_0 = jnp.zeros((1, *self.latent_shape[:-1], self.decoder_sees), jnp.float32)
        logsnr, label = jnp.zeros((1,), jnp.float32), jnp.zeros((1,), jnp.int32)

        def init(name, module, *args):
            keys = {
                "params": rng.stream(key, name),
                "dropout": rng.stream(key, "dropout"),
            }
            return module.init(keys, *args)["params"]

        params = {
            "encoder": init("encoder", self.encoder, x),
            "decoder": init("decoder", self.decoder, x, logsnr, z_0),
        }
        if self.prior is not None:
            params["prior"] = init("prior", self.prior, z, logsnr, label)
        return params


def modules(config: configs.Stage1Config) -> Modules:
    """The networks of stage 1.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    encoder = parts.network("encoder", Encoder, config.encoder, config.dtype)
    decoder = parts.network("decoder", UViT, config.decoder, config.dtype)
    image = config.data.image_shape
    if len(encoder.channels) != len(encoder.blocks):
        raise ConfigError(
            f"encoder.channels {encoder.channels} and encoder.blocks {encoder.blocks} "
            "must have the same length"
        )
    down = parts.cell("encoder", encoder, len(encoder.channels) - 1, image)
    of_decoder = parts.cell("decoder", decoder, len(decoder.channels), image)
    if down != of_decoder:
        a, b = (side[0] if len(set(side)) == 1 else parts.by(side)
                for side in (down, of_decoder))  # fmt: skip
        raise ConfigError(
            f"the encoder downsamples {a}x but the decoder's transformer is at "
            f"{b}x; change decoder.patch or decoder.channels"
        )
    parts.check_factorised("decoder", decoder, image)
    channels = encoder.latent_channels
    shape = (*(n // side for n, side in zip(image, down, strict=False)), channels)
    single = isinstance(config, configs.SingleStageConfig)
    prior = None
    if hasattr(config, "prior"):
        classes = config.data.num_classes if single else 0
        prior = parts.network(
            "prior",
            ViT,
            config.prior,
            config.dtype,
            num_classes=classes,
            text_channels=0,
        )
        parts.check_levels("prior", prior, shape)
        parts.check_factorised("prior", prior, shape)
    if isinstance(config, configs.LearnedVarianceConfig | configs.KlAutoencoderConfig):
        encoder = encoder.clone(latent_channels=2 * channels)  # mean and log variance
    # A single stage's decoder is told the noise of its latents.
    return Modules(encoder, decoder, prior, shape, channels + single)


class Networks:
    """The modules as functions of the parameters, as the objectives call them.

    v outputs become x; without `training` there is no dropout, and keys are ignored.
    """

    def __init__(self, made: Modules, training: bool):
        self._made, self.training = made, training

    def _key(self, key):
        return key if self.training else None

    def encode(self, params, x):
        return self._made.encoder.apply({"params": params["encoder"]}, x)

    def encode_normal(self, params, x):
        """Mean and log variance."""
        out = self.encode(params, x).astype(jnp.float32)
        mean, log_variance = jnp.split(out, 2, axis=-1)
        return mean, log_variance + INITIAL_LOG_VARIANCE

    def denoise_latent(self, params, z_t, logsnr, key):
        v = parts.apply(
            self._made.prior, params["prior"], z_t, logsnr, key=self._key(key)
        )
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_labelled(self, params, z_t, logsnr, condition, key):
        """As `denoise_latent`, by a prior that sees labels."""
        module, key = self._made.prior, self._key(key)
        v = parts.apply(
            module, params["prior"], z_t, logsnr, key=key, condition=condition
        )
        return predictions.x_from_v(v, z_t, logsnr)

    def denoise_image(self, params, x_t, logsnr, z_0, key):
        module, key = self._made.decoder, self._key(key)
        v = parts.apply(module, params["decoder"], x_t, logsnr, z_0, key=key)
        return predictions.x_from_v(v, x_t, logsnr)

    def denoise_with_latent_noise_level(self, params, x_t, logsnr, z_0, logsnr_0, key):
        """As `denoise_image`, told the latent's noise by one channel more."""
        plane = jnp.broadcast_to(
            gaussian.expand(logsnr_0 / 5.0, z_0), z_0[..., :1].shape
        )
        told = jnp.concatenate([z_0, plane], axis=-1)
        return self.denoise_image(params, x_t, logsnr, told, key)

    def decode(self, params, z_0, key, *, image_shape):
        """The decoder's UViT in one call, from nothing but z_0: its output is x_hat."""
        x_t = jnp.zeros((len(z_0), *image_shape), jnp.float32)
        logsnr = jnp.zeros((len(z_0),), jnp.float32)
        module, key = self._made.decoder, self._key(key)
        return parts.apply(module, params["decoder"], x_t, logsnr, z_0, key=key)
