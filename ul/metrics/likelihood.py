"""An upper bound on -log p of 8-bit images: every term at weight 1, with its ends."""

import functools
import math

import jax
import jax.numpy as jnp

from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.joint import (
    Networks,
    add_encoder_noise,
    decoder_nats,
    prior_nats,
)
from ul.objectives.noise import Draws

NAME = (
    "variational bound: L_z + decoder at weight 1 + KL of x at logsnr_min "
    "+ discretised likelihood at logsnr_max"
)


def discretised_nats(image, x_0, logsnr):
    """-log p(image | x_0) [B]: each level v has probability prop. to q(x_0 | v).

    x_0 is the least noisy x (Kingma et al., Variational Diffusion Models, equation 8).
    A loop over the 256 levels, so that no [..., 256] array is held.
    """
    alpha, variance = gaussian.alpha(logsnr), jax.nn.sigmoid(-logsnr)

    def log_q(level):
        x = level.astype(jnp.float32) / 127.5 - 1.0
        return -jnp.square(x_0 - alpha * x) / (2.0 * variance)

    def add(level, total):
        return jnp.logaddexp(total, log_q(jnp.full((1,) * x_0.ndim, level)))

    whole = jax.lax.fori_loop(0, 256, add, jnp.full_like(x_0, -jnp.inf))
    return gaussian.sum_elements(whole - log_q(image))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="draws")
def bound_nats(
    networks: Networks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    params,
    image,
    row,
    stratum,
    key,
    *,
    draws: int,
):
    """Nats [B] of uint8 images, the mean of `draws` times and noises of each."""
    x = arrays.to_unit(image)
    z_clean = networks.encode(params, x).astype(jnp.float32)

    def once(number):
        drawn = Draws(key, key, row, stratum).repeated(number, draws)
        rate = prior_nats(
            lambda z_t, logsnr: networks.denoise_latent(params, z_t, logsnr, None),
            z_clean,
            drawn,
            prior_schedule,
        )["rate"]
        z_0 = add_encoder_noise(z_clean, drawn, prior_schedule.logsnr_max)
        decoder = decoder_nats(
            lambda x_t, logsnr: networks.denoise_image(params, x_t, logsnr, z_0, None),
            x,
            drawn,
            decoder_schedule,
            weightings.elbo,
        )
        noise = drawn.noise("least_image_noise", x)
        x_0 = gaussian.corrupt(x, noise, decoder_schedule.logsnr_max)
        return (
            rate + decoder + discretised_nats(image, x_0, decoder_schedule.logsnr_max)
        )

    nats = jnp.mean(jax.lax.map(once, jnp.arange(draws)), 0)
    return nats + gaussian.kl_standard_normal(x, decoder_schedule.logsnr_min)


def bits_per_dimension(nats, dimensions: int) -> tuple[float, float]:
    """Mean and standard error over examples of nats [N], in bits per dimension."""
    unit = dimensions * math.log(2.0)
    return float(nats.mean()) / unit, float(nats.std(ddof=1)) / math.sqrt(
        len(nats)
    ) / unit
