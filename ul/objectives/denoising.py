"""One weighted denoising term, in nats: by element, and summed over an example."""

from collections.abc import Callable

import jax.numpy as jnp

from ul.core.types import Array, Float, typechecked
from ul.diffusion import gaussian
from ul.diffusion.samplers import Denoiser
from ul.diffusion.schedules import Schedule


@typechecked
def elements(
    denoise: Denoiser,
    x: Float[Array, "B ..."],
    t: Float[Array, " B"],
    eps: Float[Array, "B ..."],
    *,
    schedule: Schedule,
    weight: Callable,
) -> Float[Array, "B ..."]:
    """-logsnr'(t)/2 * weight(logsnr) * (eps - eps_hat)^2 of each element.

    With x as the pivot, (eps - eps_hat)^2 = exp(logsnr) (x - x_hat)^2: at weight 1
    this is the prior's term of UL, at factor * sigmoid(b - logsnr) the decoder's.
    """
    logsnr = schedule.logsnr(t)
    z_t = gaussian.corrupt(x, eps, logsnr)
    x_hat = denoise(z_t, logsnr).astype(jnp.float32)
    scale = -schedule.derivative(t) / 2.0 * weight(logsnr) * jnp.exp(logsnr)
    return gaussian.expand(scale, x) * jnp.square(x - x_hat)


def denoising(denoise, x, t, eps, *, schedule, weight) -> Float[Array, " B"]:
    """`elements`, summed over each example: never a mean."""
    return gaussian.sum_elements(
        elements(denoise, x, t, eps, schedule=schedule, weight=weight)
    )
