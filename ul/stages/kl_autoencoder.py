"""Another's autoencoder: from settings to networks and a codec."""

import dataclasses

import jax.numpy as jnp

from ul import config as configs
from ul.config import construct
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import gaussian
from ul.models.kl_autoencoder import KlDecoder, KlEncoder, Sizes
from ul.stages.codec import Codec


@dataclasses.dataclass(frozen=True)
class Modules:
    """The Linen modules, and the shape of the latents."""

    encoder: KlEncoder
    decoder: KlDecoder
    latent_shape: tuple[int, ...]

    def init(self, key, image_shape: tuple[int, ...]) -> dict:
        """Parameters of both networks."""
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *self.latent_shape), jnp.float32)
        return {
            "encoder": self.encoder.init(rng.stream(key, "encoder"), x)["params"],
            "decoder": self.decoder.init(rng.stream(key, "decoder"), z)["params"],
        }


def modules(config: configs.ExternalConfig) -> Modules:
    """The networks.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    sizes = construct("networks", Sizes, config.networks)
    numbers = (*sizes.channels, sizes.blocks, sizes.latent_channels, sizes.groups)
    if not sizes.channels or min(numbers) < 1:
        raise ConfigError(f"networks has {config.networks}; its counts are at least 1")
    odd = [c for c in sizes.channels if c % sizes.groups]
    if odd:
        raise ConfigError(
            f"networks.channels {odd[0]} is not divisible by networks.groups {sizes.groups}"
        )
    if len(config.data.image_shape) != 3:
        raise ConfigError(
            f"data.image_shape is {config.data.image_shape}; this autoencoder is of images"
        )
    height, width, channels = config.data.image_shape
    if height % sizes.down or width % sizes.down:
        raise ConfigError(
            f"data.image_shape {height}x{width} is not divisible by the autoencoder's "
            f"downsampling {sizes.down}; set it to the next multiple"
        )
    dtype = jnp.dtype(config.dtype)
    shape = (height // sizes.down, width // sizes.down, sizes.latent_channels)
    return Modules(KlEncoder(sizes, dtype), KlDecoder(sizes, channels, dtype), shape)


def codec(config: configs.ExternalConfig, made: Modules) -> Codec:
    """z_clean = scale (mean - shift), and one call of the decoder.

    The decoder never saw the least noise: the signal gets its size back before it.
    """
    alpha = gaussian.alpha(jnp.float32(config.latent_logsnr))

    def encode(params, x):
        mean = made.encoder.apply({"params": params["encoder"]}, x)
        return config.scale * (mean - config.shift)

    def decode(params, z_0, row, key):
        z = z_0 / (alpha * config.scale) + config.shift
        return made.decoder.apply({"params": params["decoder"]}, z)

    return Codec(
        encoder=encode,
        latent=lambda params, x, row, key: encode(params, x),
        decoder=decode,
        latent_logsnr=config.latent_logsnr,
        image_shape=config.data.image_shape,
        latent_shape=made.latent_shape,
        sampled=False,
        exact=True,
    )
