"""Stage 1 of Unified Latents: encoder, prior and decoder together.

Heek, Hoogeboom, Mensink, Salimans, "Unified Latents (UL): How to train your
latents", arXiv 2602.17270. Every term is a sum over one example, in nats.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from ul.core import arrays, trees
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.denoising import denoising
from ul.objectives.noise import Draws
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class Networks:
    """The three networks of stage 1 as functions of the parameters.

    encode(params, x) -> z_clean
    denoise_latent(params, z_t, logsnr, key) -> z_hat
    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat
    `key` seeds dropout; evaluation networks ignore it.
    """

    encode: Callable
    denoise_latent: Callable
    denoise_image: Callable


def joint(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    networks: Networks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    ramp_steps: int,
) -> Terms:
    """L_z + L_x of each example.

    `ramp_steps` > 0 raises the prior's gradient *to the encoder* linearly to 1 over as
    many steps, against collapse at the start; no value and no other gradient changes.
    """
    x, draws = arrays.to_unit(batch["image"]), Draws.of(batch, key)

    # 1. A deterministic latent.
    z_clean = networks.encode(params, x).astype(jnp.float32)

    # 2. The prior: weight 1, and the KL of its noisy end.
    def z_hat(z_t, logsnr):
        return networks.denoise_latent(params, z_t, logsnr, draws.dropout())

    ramp = ramp_at(step, ramp_steps)
    z_prior = trees.scale_gradient(z_clean, ramp)
    nats = prior_nats(z_hat, z_prior, draws, prior_schedule)

    # 3. The decoder sees z at the prior's least noise.
    z_0 = add_encoder_noise(z_clean, draws, prior_schedule.logsnr_max)

    # 4. The decoder: its own time and noise, sigmoid weight.
    def x_hat(x_t, logsnr):
        return networks.denoise_image(params, x_t, logsnr, z_0, draws.dropout())

    nats["decoder"] = decoder_nats(x_hat, x, draws, decoder_schedule, decoder_weight)

    # 5. Minimise the sum.
    return Terms(
        loss=nats["rate"] + nats["decoder"],
        nats=nats,
        stats=latent_stats(z_clean) | {"ramp": jnp.full_like(nats["rate"], ramp)},
    )


def prior_nats(z_hat, z, draws: Draws, schedule: Schedule) -> dict:
    """L_z = prior + terminal [B]: the rate, a bound on the information in z_0."""
    t, eps = draws.time("prior_time"), draws.noise("prior_noise", z)
    prior = denoising(z_hat, z, t, eps, schedule=schedule, weight=weightings.elbo)
    terminal = gaussian.kl_standard_normal(z, schedule.logsnr_min)
    return dict(rate=prior + terminal, prior=prior, terminal=terminal)


def add_encoder_noise(z, draws: Draws, logsnr):
    """z_0: the encoder's noise is the prior's least noise."""
    return gaussian.corrupt(z, draws.noise("encoder_noise", z), logsnr)


def decoder_nats(x_hat, x, draws: Draws, schedule: Schedule, weight: Callable):
    """L_x [B]."""
    t, eps = draws.time("decoder_time"), draws.noise("decoder_noise", x)
    return denoising(x_hat, x, t, eps, schedule=schedule, weight=weight)


def ramp_at(step, ramp_steps: int):
    """The share of the prior's gradient that reaches the encoder at `step`."""
    return jnp.minimum(1.0, (step + 1) / ramp_steps) if ramp_steps else 1.0
