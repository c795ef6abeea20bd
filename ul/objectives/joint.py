"""Stage 1 of Unified Latents: encoder, prior and decoder together.

Heek, Hoogeboom, Mensink, Salimans, "Unified Latents (UL): How to train your
latents", arXiv 2602.17270. Every term is a sum over one example, in nats.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp

from ul.core import arrays, rng, trees
from ul.diffusion import gaussian, times, weightings
from ul.diffusion.schedules import Schedule
from ul.objectives.denoising import denoising
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
    x, row, stratum = arrays.to_unit(batch["image"]), batch["row"], batch["stratum"]

    stream = functools.partial(rng.stream, key)
    drop = stream("dropout", row[0])  # microbatches have different rows

    def draw(name, like):
        return rng.normal(stream(name), row, like.shape[1:])

    def time(name):
        return times.stratified(stream(name), stratum)

    # 1. A deterministic latent.
    z_clean = networks.encode(params, x).astype(jnp.float32)

    # 2. The prior: weight 1, and the KL of its noisy end.
    def z_hat(z_t, logsnr):
        return networks.denoise_latent(params, z_t, logsnr, drop)

    ramp = jnp.minimum(1.0, (step + 1) / ramp_steps) if ramp_steps else 1.0
    z_prior = trees.scale_gradient(z_clean, ramp)
    t, eps, weight = time("prior_time"), draw("prior_noise", z_clean), weightings.elbo
    prior = denoising(z_hat, z_prior, t, eps, schedule=prior_schedule, weight=weight)
    terminal = gaussian.kl_standard_normal(z_prior, prior_schedule.logsnr_min)

    # 3. The decoder sees z at the prior's least noise.
    eps_0 = draw("encoder_noise", z_clean)
    z_0 = gaussian.corrupt(z_clean, eps_0, prior_schedule.logsnr_max)

    # 4. The decoder: its own time and noise, sigmoid weight.
    def x_hat(x_t, logsnr):
        return networks.denoise_image(params, x_t, logsnr, z_0, drop)

    t, eps, weight = time("decoder_time"), draw("decoder_noise", x), decoder_weight
    decoder = denoising(x_hat, x, t, eps, schedule=decoder_schedule, weight=weight)

    # 5. Minimise the sum. The rate L_z = prior + terminal bounds the information in z_0.
    rate = prior + terminal
    return Terms(
        loss=rate + decoder,
        nats=dict(rate=rate, prior=prior, terminal=terminal, decoder=decoder),
        stats=latent_stats(z_clean) | {"ramp": jnp.full_like(rate, ramp)},
    )
