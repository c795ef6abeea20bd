"""Guidance: denoisers in, a denoiser out."""

import jax.numpy as jnp

from ul.diffusion.gaussian import expand
from ul.diffusion.samplers import Denoiser


def classifier_free(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: float,
    interval: tuple[float, float] = (-jnp.inf, jnp.inf),
) -> Denoiser:
    """x_u + scale (x_c - x_u) where logsnr is inside `interval`, else x_c.

    Scale 1 is the conditional denoiser, 0 the unconditional one (Ho & Salimans;
    the interval is that of Kynkaanniemi et al.).
    """

    def denoise(z_t, logsnr):
        x_c, x_u = conditional(z_t, logsnr), unconditional(z_t, logsnr)
        inside = (logsnr >= interval[0]) & (logsnr <= interval[1])
        extra = expand(jnp.where(inside, scale - 1.0, 0.0), z_t)
        return x_c + extra * (x_c - x_u)

    return denoise
