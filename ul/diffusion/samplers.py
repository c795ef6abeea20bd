"""Samplers from pure noise down to a schedule's logsnr_max, in one scan.

Every sampler returns **the noisy z_0** at the schedule's logsnr_max, because that is the
latent that the decoder takes. A caller that needs the clean signal calls the denoiser once
more at logsnr_max.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ul.core import rng
from ul.core.types import Array, Float, Int, Key, typechecked
from ul.diffusion import gaussian
from ul.diffusion.schedules import Schedule

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]


class SamplerStep(NamedTuple):
    """One step from time t to s < t, as scalars.

    extrapolation: the width of this step in logsnr over twice the width of the previous
      one; 0 in the first step.
    """

    number: jax.Array
    logsnr_t: jax.Array
    logsnr_s: jax.Array
    extrapolation: jax.Array


def ancestral(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Draw z_s from q(z_s | z_t, x_hat) (Ho et al., DDPM)."""
    mean, variance = gaussian.posterior(z, x_hat, step.logsnr_t, step.logsnr_s)
    return mean + jnp.sqrt(variance) * draw_eps()


def ddim(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Move from t to s with the predicted noise unchanged (Song et al., DDIM, eta = 0).

    z_s = (sigma_s / sigma_t) z_t + alpha_s (1 - e^-h) x_hat, h half the rise in logsnr.
    """
    h = (step.logsnr_s - step.logsnr_t) / 2.0
    ratio = gaussian.sigma(step.logsnr_s) / gaussian.sigma(step.logsnr_t)
    return ratio * z - gaussian.alpha(step.logsnr_s) * jnp.expm1(-h) * x_hat


def dpmpp_2m(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Move from t to s by DDIM with an extrapolated x_hat.

    DPM-Solver++(2M), Lu et al. 2022, algorithm 2.
    """
    extrapolated = x_hat + step.extrapolation * (x_hat - previous_x_hat)
    return ddim(z, extrapolated, previous_x_hat, step, draw_eps)


METHODS = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}


def sampler_steps(schedule: Schedule, num_steps: int) -> SamplerStep:
    """Return all steps of an even grid in t, as arrays [num_steps]."""
    logsnr = schedule.logsnr(jnp.linspace(1.0, 0.0, num_steps + 1, dtype=jnp.float32))
    width = jnp.diff(logsnr)
    previous = jnp.concatenate([jnp.full((1,), jnp.inf), width[:-1]])
    extrapolation = width / (2.0 * previous)
    return SamplerStep(jnp.arange(num_steps), logsnr[:-1], logsnr[1:], extrapolation)


@typechecked
def sample(
    denoise: Denoiser,
    shape: tuple[int, ...],
    row: Int[Array, " B"],
    key: Key[Array, ""],
    *,
    schedule: Schedule,
    method: str,
    num_steps: int,
) -> Float[Array, "B ..."]:
    """Sample z_0 [B, *shape], which is noisy at logsnr_max.

    Sample i depends on `key` and `row[i]` alone.
    """
    update = METHODS[method]

    def body(carry, step: SamplerStep):
        z, previous_x_hat = carry
        logsnr = jnp.broadcast_to(step.logsnr_t, row.shape)
        x_hat = denoise(z, logsnr).astype(jnp.float32)
        z = update(
            z,
            x_hat,
            previous_x_hat,
            step,
            lambda: rng.normal(rng.stream(key, "step", step.number), row, shape),
        )
        return (z, x_hat), None

    z_1 = rng.normal(rng.stream(key, "z_1"), row, shape)
    (z_0, _), _ = jax.lax.scan(
        body, (z_1, jnp.zeros_like(z_1)), sampler_steps(schedule, num_steps)
    )
    return z_0
