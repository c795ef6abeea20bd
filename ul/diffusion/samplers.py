"""From pure noise to a schedule's least noise, in one scan.

Every sampler ends with **the noisy z_0** at the schedule's logsnr_max: a base model
hands exactly that to the decoder. Who wants the clean signal calls the denoiser
once more there.
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


class Move(NamedTuple):
    """One step from time t to s < t. Scalars."""

    number: jax.Array
    logsnr_t: jax.Array
    logsnr_s: jax.Array
    # Width of this step over twice that of the one before; 0 in the first step.
    extrapolate: jax.Array


def ancestral(z, x_hat, x_before, move: Move, eps):
    """Draw from q(z_s | z_t, x_hat) (Ho et al., DDPM)."""
    mean, variance = gaussian.posterior(z, x_hat, move.logsnr_t, move.logsnr_s)
    return mean + jnp.sqrt(variance) * eps()


def ddim(z, x_hat, x_before, move: Move, eps):
    """Keep the noise estimate, move along it (Song et al., DDIM, eta = 0).

    z_s = (sigma_s / sigma_t) z_t + alpha_s (1 - e^-h) x_hat, h half the rise in logsnr.
    """
    h = (move.logsnr_s - move.logsnr_t) / 2.0
    ratio = gaussian.sigma(move.logsnr_s) / gaussian.sigma(move.logsnr_t)
    return ratio * z - gaussian.alpha(move.logsnr_s) * jnp.expm1(-h) * x_hat


def dpmpp_2m(z, x_hat, x_before, move: Move, eps):
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: DDIM with x_hat extrapolated."""
    extrapolated = x_hat + move.extrapolate * (x_hat - x_before)
    return ddim(z, extrapolated, x_before, move, eps)


METHODS = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}


def moves(schedule: Schedule, num_steps: int) -> Move:
    """All steps of an even grid in t, stacked [num_steps]."""
    logsnr = schedule.logsnr(jnp.linspace(1.0, 0.0, num_steps + 1, dtype=jnp.float32))
    width = jnp.diff(logsnr)
    before = jnp.concatenate([jnp.full((1,), jnp.inf), width[:-1]])
    return Move(jnp.arange(num_steps), logsnr[:-1], logsnr[1:], width / (2.0 * before))


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
    """z_0 [B, *shape]: noisy, at logsnr_max. Row i depends on `key` and `row[i]` alone."""
    update = METHODS[method]

    def body(carry, move: Move):
        z, x_before = carry
        logsnr = jnp.broadcast_to(move.logsnr_t, row.shape)
        x_hat = denoise(z, logsnr).astype(jnp.float32)
        z = update(
            z,
            x_hat,
            x_before,
            move,
            lambda: rng.normal(rng.stream(key, "step", move.number), row, shape),
        )
        return (z, x_hat), None

    z_1 = rng.normal(rng.stream(key, "z_1"), row, shape)
    (z_0, _), _ = jax.lax.scan(
        body, (z_1, jnp.zeros_like(z_1)), moves(schedule, num_steps)
    )
    return z_0
