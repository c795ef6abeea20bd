"""Stage 1 of Unified Latents: the joint loss of encoder, prior and decoder.

Heek, Hoogeboom, Mensink, Salimans, "Unified Latents (UL): How to train your latents",
arXiv 2602.17270. Every term is a sum over the elements of one example, in nats. The
numbers in the comments are those of the equations in ul/README.md.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from ul.core import arrays, trees
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.denoising import denoising_loss
from ul.objectives.noise import BatchNoise
from ul.objectives.terms import Batch, Params, Terms, latent_stats


@dataclasses.dataclass(frozen=True)
class JointNetworks:
    """The three networks of stage 1 as functions of the parameters.

    encode(params, x) -> z_clean
    denoise_latent(params, z_t, logsnr, key) -> z_hat
    denoise_image(params, x_t, logsnr, z_0, key) -> x_hat
    `key` seeds dropout; networks for evaluation ignore it.
    """

    encode: Callable
    denoise_latent: Callable
    denoise_image: Callable


def joint_loss(
    params: Params,
    batch: Batch,
    key,
    step,
    *,
    networks: JointNetworks,
    prior_schedule: Schedule,
    decoder_schedule: Schedule,
    decoder_weight: Callable,
    ramp_steps: int,
) -> Terms:
    """Return L_z + L_x of each example.

    With `ramp_steps` > 0, the gradient of L_z with respect to the encoder rises linearly
    to its full size over that many steps, against collapse at the start. No value and no
    other gradient changes.
    """
    x, noise = arrays.scale_pixels(batch["image"]), BatchNoise.for_batch(batch, key)

    # (1) A deterministic latent.
    z_clean = networks.encode(params, x).astype(jnp.float32)

    # (2) The prior: a denoising loss of weight 1, and the KL at its noisiest level.
    def denoise_z(z_t, logsnr):
        return networks.denoise_latent(params, z_t, logsnr, noise.dropout_key())

    ramp = gradient_ramp(step, ramp_steps)
    z_prior = trees.scale_gradient(z_clean, ramp)
    nats = prior_nats(denoise_z, z_prior, noise, prior_schedule)

    # (3) The decoder's latent: z_clean with noise at the prior's maximum log-SNR.
    z_0 = add_encoder_noise(z_clean, noise, prior_schedule.logsnr_max)

    # (4) The decoder: a denoising loss of sigmoid weight, with its own time and noise.
    def denoise_x(x_t, logsnr):
        return networks.denoise_image(params, x_t, logsnr, z_0, noise.dropout_key())

    nats["decoder"] = decoder_nats(
        denoise_x, x, noise, decoder_schedule, decoder_weight
    )

    # (5) The loss is the sum.
    return Terms(
        loss=nats["rate"] + nats["decoder"],
        nats=nats,
        stats=latent_stats(z_clean) | {"ramp": jnp.full_like(nats["rate"], ramp)},
    )


def prior_nats(denoise, z, noise: BatchNoise, schedule: Schedule) -> dict:
    """Return L_z of equation 2 as "rate", and its terms "prior" and "terminal".

    All are [B] in nats. denoise(z_t, logsnr) -> z_hat. z [B, ...] is the clean latent.
    """
    t, eps = noise.time("prior_time"), noise.normal("prior_noise", z)
    prior = denoising_loss(
        denoise, z, t, eps, schedule=schedule, weight=weightings.elbo
    )
    terminal = gaussian.kl_standard_normal(z, schedule.logsnr_min)
    return dict(rate=prior + terminal, prior=prior, terminal=terminal)


def add_encoder_noise(z, noise: BatchNoise, logsnr):
    """Return z_0 of equation 3, like the clean latent z [B, ...].

    logsnr: the prior's maximum log-SNR, a scalar or [B].
    """
    return gaussian.corrupt(z, noise.normal("encoder_noise", z), logsnr)


def decoder_nats(denoise, x, noise: BatchNoise, schedule: Schedule, weight: Callable):
    """Return the decoder's loss L_x of equation 4, [B] in nats.

    denoise(x_t, logsnr) -> x_hat. x [B, ...] is the image in -1..1.
    """
    t, eps = noise.time("decoder_time"), noise.normal("decoder_noise", x)
    return denoising_loss(denoise, x, t, eps, schedule=schedule, weight=weight)


def gradient_ramp(step, ramp_steps: int):
    """Return the fraction of the prior's gradient that reaches the encoder at `step`."""
    return jnp.minimum(1.0, (step + 1) / ramp_steps) if ramp_steps else 1.0
