"""Guidance: denoisers in, a denoiser out."""

import jax.numpy as jnp

from ul.diffusion.gaussian import expand
from ul.diffusion.samplers import Denoiser


def guided(
    denoiser: Denoiser,
    weaker: Denoiser,
    scale: float,
    interval: tuple[float, float] = (-jnp.inf, jnp.inf),
) -> Denoiser:
    """x_w + scale (x - x_w) where logsnr is inside `interval`, else x.

    Scale 1 is the denoiser, 0 the weaker one: the same without its condition
    (classifier-free, Ho & Salimans), or a lesser model's (autoguidance, Karras et al.).
    The interval is that of Kynkaanniemi et al.
    """

    def denoise(z_t, logsnr):
        x, x_w = denoiser(z_t, logsnr), weaker(z_t, logsnr)
        inside = (logsnr >= interval[0]) & (logsnr <= interval[1])
        extra = expand(jnp.where(inside, scale - 1.0, 0.0), z_t)
        return x + extra * (x - x_w)

    return denoise
