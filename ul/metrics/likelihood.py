"""An upper bound on -log p of 8-bit images: all terms of the ELBO with weight 1."""

import functools
import math

import jax
import jax.numpy as jnp

from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import (
    JointNetworks,
    add_encoder_noise,
    decoder_nats,
    prior_nats,
)
from ul.objectives.noise import BatchNoise

DESCRIPTION = (
    "variational bound: L_z + decoder at weight 1 + KL of x at logsnr_min "
    "+ discretized likelihood at logsnr_max"
)


def discretized_nats(image, x_0, logsnr):
    """Return -log p(image | x_0) [B] with p(level v) proportional to q(x_0 | v).

    x_0 is x with the noise of the maximum log-SNR (Kingma et al., Variational Diffusion
    Models, equation 8). The loop over the 256 levels avoids an array [..., 256].
    """
    alpha, variance = gaussian.alpha(logsnr), jax.nn.sigmoid(-logsnr)

    def log_q(level):
        x = level.astype(jnp.float32) / 127.5 - 1.0
        return -jnp.square(x_0 - alpha * x) / (2.0 * variance)

    def add_level(level, log_total):
        return jnp.logaddexp(log_total, log_q(jnp.full((1,) * x_0.ndim, level)))

    log_normalizer = jax.lax.fori_loop(0, 256, add_level, jnp.full_like(x_0, -jnp.inf))
    return gaussian.sum_elements(log_normalizer - log_q(image))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="num_draws")
def bound_nats(
    networks: JointNetworks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    params,
    image,
    row,
    stratum,
    key,
    *,
    num_draws: int,
):
    """Return the bound in nats [B] for uint8 images, averaged over `num_draws` draws.

    Each draw has its own times and noises, which depend on the key and on the `row` and
    `stratum` [B] of an image alone.
    """
    x = arrays.scale_pixels(image)
    z_clean = networks.encode(params, x).astype(jnp.float32)

    def one_draw(index):
        batch_noise = BatchNoise(key, key, row, stratum).for_draw(index, num_draws)
        rate = prior_nats(
            lambda z_t, logsnr: networks.denoise_latent(params, z_t, logsnr, None),
            z_clean,
            batch_noise,
            prior_schedule,
        )["rate"]
        z_0 = add_encoder_noise(z_clean, batch_noise, prior_schedule.logsnr_max)
        decoder = decoder_nats(
            lambda x_t, logsnr: networks.denoise_image(params, x_t, logsnr, z_0, None),
            x,
            batch_noise,
            decoder_schedule,
            weightings.elbo,
        )
        eps = batch_noise.normal("least_image_noise", x)
        x_0 = gaussian.corrupt(x, eps, decoder_schedule.logsnr_max)
        return (
            rate + decoder + discretized_nats(image, x_0, decoder_schedule.logsnr_max)
        )

    nats = jnp.mean(jax.lax.map(one_draw, jnp.arange(num_draws)), 0)
    return nats + gaussian.kl_standard_normal(x, decoder_schedule.logsnr_min)


def bits_per_dimension(nats, dimensions: int) -> tuple[float, float]:
    """Return mean and standard error over examples of nats [N], in bits per dimension."""
    nats_per_bpd = dimensions * math.log(2.0)
    sem = float(nats.std(ddof=1)) / math.sqrt(len(nats))
    return float(nats.mean()) / nats_per_bpd, sem / nats_per_bpd
