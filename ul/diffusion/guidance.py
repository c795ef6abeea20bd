"""Guidance: combining two denoisers into one."""

import jax
import jax.numpy as jnp

from ul.diffusion.gaussian import expand
from ul.diffusion.samplers import Denoiser


def guide(
    denoiser: Denoiser,
    guiding_denoiser: Denoiser,
    scale: float,
    interval: tuple[float, float] = (-jnp.inf, jnp.inf),
) -> Denoiser:
    """Return the denoiser x_guiding + scale (x - x_guiding).

    At scale 1 it is `denoiser`, at scale 0 `guiding_denoiser`. The guiding denoiser is the
    same network without its condition (classifier-free guidance, Ho & Salimans, arXiv
    2207.12598) or a weaker model (autoguidance, Karras et al., arXiv 2406.02507). Outside
    the `interval` of logsnr the result is `denoiser` (Kynkaanniemi et al., arXiv
    2404.07724). If a whole batch is outside, the guiding denoiser is not evaluated.
    """

    def denoise(z_t, logsnr):
        x = denoiser(z_t, logsnr)
        inside = (logsnr >= interval[0]) & (logsnr <= interval[1])

        def guided():
            extra = expand(jnp.where(inside, scale - 1.0, 0.0), z_t)
            return x + extra * (x - guiding_denoiser(z_t, logsnr))

        return jax.lax.cond(jnp.any(inside), guided, lambda: x)

    return denoise
