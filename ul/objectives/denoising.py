"""The weighted denoising loss of one diffusion model, in nats."""

from collections.abc import Callable

import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked
from ul.diffusion import gaussian
from ul.diffusion.samplers import Denoiser
from ul.diffusion.schedules import Schedule


@typechecked
def denoising_loss_elements(
    denoise: Denoiser,
    x: Float[Array, "B ..."],
    t: Float[Array, " B"],
    eps: Float[Array, "B ..."],
    *,
    schedule: Schedule,
    weight: Callable,
) -> Float[Array, "B ..."]:
    """Return -logsnr'(t)/2 * weight(logsnr) * (eps - eps_hat)^2 of each element.

    It is computed from the x error: (eps - eps_hat)^2 = exp(logsnr) (x - x_hat)^2. With
    weight 1 it is the prior's loss of UL, with factor * sigmoid(bias - logsnr) the
    decoder's (ul/README.md, equations 2 and 4).
    """
    logsnr = schedule.logsnr(t)
    z_t = gaussian.corrupt(x, eps, logsnr)
    x_hat = denoise(z_t, logsnr).astype(jnp.float32)
    scale = -schedule.derivative(t) / 2.0 * weight(logsnr) * jnp.exp(logsnr)
    return gaussian.expand(scale, x) * jnp.square(x - x_hat)


def denoising_loss(denoise, x, t, eps, *, schedule, weight) -> Float[Array, " B"]:
    """Return `denoising_loss_elements` summed over each example."""
    return gaussian.sum_elements(
        denoising_loss_elements(denoise, x, t, eps, schedule=schedule, weight=weight)
    )
