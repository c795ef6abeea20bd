"""An imported KL autoencoder, such as Stable Diffusion's."""

import dataclasses

import jax
import jax.numpy as jnp

from ul.config import AutoencoderConfig, construct
from ul.core import rng
from ul.core.errors import ConfigError
from ul.diffusion import gaussian
from ul.models import parameters
from ul.models.kl_autoencoder import KlAutoencoderSizes, KlDecoder, KlEncoder
from ul.stages.codec import Codec
from ul.stages.conditions import Conditions
from ul.stages.stage import NetworkUse, Stage, StageKind


@dataclasses.dataclass(frozen=True)
class ExternalConfig(AutoencoderConfig):
    """Settings of an imported autoencoder (importing/autoencoder_weights.py).

    Its latents are scale * (mean - shift). latent_logsnr: the log-SNR at which a base
    model on them stops.
    """

    networks: dict
    scale: float
    shift: float
    latent_logsnr: float


def _sizes(config: ExternalConfig) -> KlAutoencoderSizes:
    """Return the sizes of the networks after checking them.

    Raises:
      ConfigError: they do not fit each other or the images.
    """
    sizes = construct("networks", KlAutoencoderSizes, config.networks)
    counts = (*sizes.channels, sizes.blocks, sizes.latent_channels, sizes.groups)
    if not sizes.channels or min(counts) < 1:
        raise ConfigError(
            f"networks: every count must be at least 1; got {config.networks}."
        )
    if indivisible := [c for c in sizes.channels if c % sizes.groups]:
        raise ConfigError(
            "networks.channels must be divisible by networks.groups; got "
            f"{indivisible[0]} and {sizes.groups}."
        )
    if len(config.data.image_shape) != 3:
        raise ConfigError(
            "data.image_shape must be (height, width, channels), because an imported "
            f"autoencoder takes images; got {config.data.image_shape}."
        )
    height, width, _ = config.data.image_shape
    if height % sizes.down or width % sizes.down:
        raise ConfigError(
            "data.image_shape must be divisible by the autoencoder's downsampling "
            f"{sizes.down}; got {height}x{width}."
        )
    return sizes


def _codec(
    config: ExternalConfig, encoder: KlEncoder, decoder: KlDecoder, latent_shape
) -> Codec:
    """Return z_clean = scale (mean - shift), and one call of the decoder.

    The decoder was trained without noise: the signal is rescaled to its size before it.
    """
    alpha = gaussian.alpha(jnp.float32(config.latent_logsnr))

    def encode(params, x):
        mean = encoder.apply({"params": params["encoder"]}, x)
        return config.scale * (mean - config.shift)

    def decode(params, z_0, row, key):
        z = z_0 / (alpha * config.scale) + config.shift
        return decoder.apply({"params": params["decoder"]}, z)

    return Codec(
        encoder=encode,
        latent=lambda params, x, row, key: encode(params, x),
        decoder=decode,
        latent_logsnr=config.latent_logsnr,
        image_shape=config.data.image_shape,
        latent_shape=latent_shape,
        is_diffusion=False,
        is_deterministic=True,
    )


def build(config: ExternalConfig) -> Stage:
    """Build an imported autoencoder: it encodes and decodes, and has no objective.

    Raises:
      ConfigError: settings that do not fit each other, with the numbers.
    """
    sizes, image_shape = _sizes(config), config.data.image_shape
    height, width, channels = image_shape
    dtype = jnp.dtype(config.dtype)
    encoder, decoder = KlEncoder(sizes, dtype), KlDecoder(sizes, channels, dtype)
    grid = (height // sizes.down, width // sizes.down)
    latent_shape = (*grid, sizes.latent_channels)

    def init(root: jax.Array) -> dict:
        x = jnp.zeros((1, *image_shape), jnp.float32)
        z = jnp.zeros((1, *latent_shape), jnp.float32)
        return {
            "encoder": parameters.initialize(encoder, rng.stream(root, "encoder"), x),
            "decoder": parameters.initialize(decoder, rng.stream(root, "decoder"), z),
        }

    return Stage(
        name="external",
        image_shape=image_shape,
        latent_shape=latent_shape,
        num_classes=config.data.num_classes,
        evaluation=config.eval,
        init=init,
        objective=None,
        held_out_objective=None,
        batch={},
        networks={
            "encoder": NetworkUse(encoder, image_shape),
            "decoder": NetworkUse(decoder, latent_shape),
        },
        conditions=Conditions(),
        codec=_codec(config, encoder, decoder, latent_shape),
    )


STAGE = StageKind("external", ExternalConfig, build)
