"""A one-dimensional Gaussian mixture: its denoiser and all its marginals, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from ul.diffusion import gaussian

WEIGHTS, MEANS, STDS = np.asarray([[0.3, 0.7], [-0.6, 0.9], [0.15, 0.3]])


def denoise(z, logsnr):
    """E[x | z_t] of z_t [B, D]: each component's posterior mean, by its share of z_t."""
    weights, means, stds = (
        jnp.asarray(v, jnp.float32).reshape(1, 1, 2) for v in (WEIGHTS, MEANS, STDS)
    )
    a, s = (
        gaussian.expand(f(logsnr), z)[..., None]
        for f in (gaussian.alpha, gaussian.sigma)
    )
    off, variance = z[..., None] - a * means, a**2 * stds**2 + s**2
    share = jax.nn.softmax(
        jnp.log(weights) - off**2 / (2 * variance) - jnp.log(variance) / 2, axis=-1
    )
    return jnp.sum(share * (means + a * stds**2 / variance * off), axis=-1)


def marginal(logsnr):
    """Means and stds [2] of the components of z_t, float64; at inf those of x."""
    signal = 1 / (1 + np.exp(-logsnr))
    return np.sqrt(signal) * MEANS, np.sqrt(signal * STDS**2 + 1 - signal)


def cdf(z, logsnr):
    return stats.norm.cdf(np.asarray(z)[..., None], *marginal(logsnr)) @ WEIGHTS


def pdf(z, logsnr):
    return stats.norm.pdf(np.asarray(z)[..., None], *marginal(logsnr)) @ WEIGHTS


def transport(z, start, end):
    """Where the probability flow takes z [N] from logsnr `start` to `end`.

    On a line the flow keeps the order of its points: quantile goes to quantile.
    """
    quantiles = cdf(np.asarray(z, np.float64), start)
    return np.asarray(
        [
            optimize.brentq(lambda y, q=q: cdf(y, end) - q, -12, 12, xtol=1e-12)
            for q in quantiles
        ]
    )
