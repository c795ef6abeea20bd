"""The two parts of stage 1 alone: a decoder on a frozen encoder, and the rate of latents."""

from collections.abc import Callable

import jax.numpy as jnp

from ul.core import arrays
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import add_encoder_noise, decoder_nats, prior_nats
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


def decoder_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    denoise_image: Callable,
    latent_logsnr: float,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
) -> Terms:
    """Return L_x of each image given its latent (ul/README.md, equations 3 and 4).

    The batch holds `image` and the frozen encoder's `z_clean`.
    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat. latent_logsnr: the log-SNR of
    z_0, that of the encoder's fixed noise.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_0 = add_encoder_noise(batch["z_clean"], noise, latent_logsnr)

    def denoise_x(x_t, logsnr):
        return denoise_image(params, x_t, logsnr, z_0, noise.dropout_key())

    nats = decoder_nats(denoise_x, x, noise, decoder_schedule, decoder_weight)
    stats = latent_stats(batch["z_clean"])
    return Terms(loss=nats, nats={"decoder": nats}, stats=stats)


def latent_rate(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    encode: Callable,
    denoise_latent: Callable,
    prior_schedule: Schedule,
) -> Terms:
    """Return L_z of each image (ul/README.md, equation 2), for a decoder without a loss.

    encode, denoise_latent: as those of `JointNetworks`.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)
    z_clean = encode(params, x).astype(jnp.float32)

    def denoise_z(z_t, logsnr):
        return denoise_latent(params, z_t, logsnr, noise.dropout_key())

    nats = prior_nats(denoise_z, z_clean, noise, prior_schedule)
    return Terms(loss=nats["rate"], nats=nats, stats=latent_stats(z_clean))
