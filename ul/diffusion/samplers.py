"""Samplers from pure noise to the largest log-SNR of a grid, in one scan.

Every sampler returns **the noisy z_0** at the last logsnr of its grid, because that is the
latent that the decoder takes. A caller that needs the clean signal calls the denoiser once
more at that logsnr.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ul.core import rng
from ul.core.types import Array, Float, Int, Key, typechecked
from ul.diffusion import gaussian
from ul.diffusion.sampling_grids import Grid, UniformTime
from ul.diffusion.schedules import Schedule

TRAINING_GRID = UniformTime()
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


def renoise(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Corrupt the prediction with fresh noise to the next noise level.

    Song et al., Consistency Models, arXiv 2303.01469, algorithm 1.
    """
    return gaussian.corrupt(x_hat, draw_eps(), step.logsnr_s)


def _extrapolate(x_hat, previous_x_hat, step: SamplerStep):
    """Return x_hat at the middle of the step, extrapolated from the previous step."""
    return x_hat + step.extrapolation * (x_hat - previous_x_hat)


def dpmpp_2m(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Move from t to s by DDIM with an extrapolated x_hat.

    DPM-Solver++(2M), Lu et al. 2022, algorithm 2.
    """
    extrapolated = _extrapolate(x_hat, previous_x_hat, step)
    return ddim(z, extrapolated, previous_x_hat, step, draw_eps)


def dpmpp_2m_sde(z, x_hat, previous_x_hat, step: SamplerStep, draw_eps):
    """Draw z_s as `ancestral` does, with an extrapolated x_hat.

    SDE-DPM-Solver++(2M), Lu et al. 2022, appendix; its first-order part is the posterior.
    """
    extrapolated = _extrapolate(x_hat, previous_x_hat, step)
    return ancestral(z, extrapolated, previous_x_hat, step, draw_eps)


def heun_correction(z, x_hat, next_x_hat, step: SamplerStep):
    """Repeat a step of `ddim` with an x_hat that is linear between the ends of the step.

    Heun's method in exponential form (Hochbruck & Ostermann, Exponential integrators,
    2010, equation 2.39): with y = z / alpha and tau = logsnr / 2 the ODE is
    dy/dtau = x_hat - y, whose linear part is integrated exactly. The mean slope of EDM
    (Karras et al., algorithm 1) has the same order, but divides the change of x_hat by the
    ratio of the noises, which is large in wide steps.
    """
    h = (step.logsnr_s - step.logsnr_t) / 2.0
    # The weight is 1/2 for small h. The difference of the two terms cancels there.
    exact = -1.0 / jnp.expm1(-h) - 1.0 / h
    weight = jnp.where(h < 0.05, 0.5 + h / 12.0, exact)
    return ddim(z, x_hat + weight * (next_x_hat - x_hat), None, step, None)


METHODS = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "heun": ddim,
}
# For distilled networks, whose x_hat is a sample of x instead of its posterior mean.
STUDENT_METHODS = {"renoise": renoise}
# These need a second prediction at the end of every step.
CORRECTIONS = {"heun": heun_correction}
EXTRAPOLATING = ("dpmpp_2m", "dpmpp_2m_sde")
# Their samples depend on more noise than that of z_1.
STOCHASTIC = ("ancestral", "dpmpp_2m_sde", "renoise")


def sampler_steps(
    schedule: Schedule, num_steps: int, grid: Grid = TRAINING_GRID
) -> SamplerStep:
    """Return all steps of a grid, as arrays [num_steps]."""
    logsnr = grid(schedule, num_steps)
    width = jnp.diff(logsnr)
    previous = jnp.concatenate([jnp.full((1,), jnp.inf), width[:-1]])
    extrapolation = width / (2.0 * previous)
    return SamplerStep(jnp.arange(num_steps), logsnr[:-1], logsnr[1:], extrapolation)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A method with its grid and its number of steps.

    method: a name in `METHODS` or `STUDENT_METHODS`.
    """

    method: str
    num_steps: int
    schedule: Schedule
    grid: Grid = TRAINING_GRID

    @property
    def logsnr_max(self) -> float:
        """The logsnr of the samples."""
        return self.grid.ends(self.schedule)[1]

    @property
    def nfe(self) -> int:
        """Function evaluations of the denoiser for one sample."""
        return self.num_steps * (2 if self.method in CORRECTIONS else 1)

    def __call__(
        self,
        denoise: Denoiser,
        shape: tuple[int, ...],
        row: jax.Array,
        key: jax.Array,
        normal: Callable = rng.normal,
    ) -> jax.Array:
        """Sample z_0 [B, *shape], see `sample`."""
        return sample(
            denoise,
            shape,
            row,
            key,
            schedule=self.schedule,
            method=self.method,
            num_steps=self.num_steps,
            grid=self.grid,
            normal=normal,
        )


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
    grid: Grid = TRAINING_GRID,
    normal: Callable = rng.normal,
) -> Float[Array, "B ..."]:
    """Sample z_0 [B, *shape], which is noisy at the largest logsnr of the grid.

    Sample i depends on `key` and `row[i]` alone. normal(key, row, shape) draws the noise.
    """
    update = (METHODS | STUDENT_METHODS)[method]
    correct = CORRECTIONS.get(method)

    def predict(z, logsnr):
        return denoise(z, jnp.broadcast_to(logsnr, row.shape)).astype(jnp.float32)

    def body(carry, step: SamplerStep):
        z, previous_x_hat = carry
        x_hat = predict(z, step.logsnr_t)
        z_s = update(
            z,
            x_hat,
            previous_x_hat,
            step,
            lambda: normal(rng.stream(key, "step", step.number), row, shape),
        )
        if correct is not None:
            z_s = correct(z, x_hat, predict(z_s, step.logsnr_s), step)
        return (z_s, x_hat), None

    z_1 = normal(rng.stream(key, "z_1"), row, shape)
    (z_0, _), _ = jax.lax.scan(
        body, (z_1, jnp.zeros_like(z_1)), sampler_steps(schedule, num_steps, grid)
    )
    return z_0
