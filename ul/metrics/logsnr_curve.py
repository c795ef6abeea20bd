"""The information per unit of log-SNR, from which an adaptive sampling grid follows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ul.core import rng
from ul.diffusion import gaussian
from ul.diffusion.schedules import Schedule

NUM_BINS = 30


def nats_per_logsnr(denoise: Callable, x, row, key, schedule: Schedule) -> jax.Array:
    """Return e^l / 2 ||x - x_hat||^2 of each example at the center of every bin.

    denoise(x_t, logsnr) -> x_hat. x: [B, ...]; row: int32 [B]. The result is [B, NUM_BINS],
    for bins of equal width from the schedule's logsnr_min to its logsnr_max. It is the
    derivative of the information of x_t about x if the denoiser is ideal (Guo, Shamai &
    Verdu 2005).
    """
    width = (schedule.logsnr_max - schedule.logsnr_min) / NUM_BINS

    def at(index):
        center = schedule.logsnr_min + width * (index + 0.5)
        logsnr = jnp.broadcast_to(center, row.shape)
        eps = rng.normal(rng.stream(key, "curve", index), row, x.shape[1:])
        x_hat = denoise(gaussian.corrupt(x, eps, logsnr), logsnr)
        squared = gaussian.sum_elements(jnp.square(x - x_hat))
        return jnp.exp(center) / 2.0 * squared

    return jax.lax.map(at, jnp.arange(NUM_BINS)).T
