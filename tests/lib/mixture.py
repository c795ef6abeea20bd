"""The exact denoiser and marginals of a one-dimensional Gaussian mixture."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from ul.core import rng
from ul.diffusion import gaussian, samplers

WEIGHTS, MEANS, STDS = np.asarray([[0.3, 0.7], [-0.6, 0.9], [0.15, 0.3]])


def denoise(z, logsnr):
    """Return E[x | z_t] for z_t [B, D].

    It is the mean over the components' posterior means, weighted by the probability of
    each component given z_t.
    """
    weights, means, stds = (
        jnp.asarray(v, jnp.float32).reshape(1, 1, 2) for v in (WEIGHTS, MEANS, STDS)
    )
    a, s = (
        gaussian.expand(f(logsnr), z)[..., None]
        for f in (gaussian.alpha, gaussian.sigma)
    )
    deviation, variance = z[..., None] - a * means, a**2 * stds**2 + s**2
    probability = jax.nn.softmax(
        jnp.log(weights) - deviation**2 / (2 * variance) - jnp.log(variance) / 2,
        axis=-1,
    )
    return jnp.sum(probability * (means + a * stds**2 / variance * deviation), axis=-1)


def marginal(logsnr):
    """Return the means and stds [2] of the components of z_t in float64.

    At logsnr inf they are those of x.
    """
    signal = 1 / (1 + np.exp(-logsnr))
    return np.sqrt(signal) * MEANS, np.sqrt(signal * STDS**2 + 1 - signal)


def cdf(z, logsnr):
    """Return the cumulative distribution function of z_t at z."""
    return stats.norm.cdf(np.asarray(z)[..., None], *marginal(logsnr)) @ WEIGHTS


def pdf(z, logsnr):
    """Return the density of z_t at z."""
    return stats.norm.pdf(np.asarray(z)[..., None], *marginal(logsnr)) @ WEIGHTS


def transport(z, start, end):
    """Transport z [N] by the probability flow from logsnr `start` to `end`.

    In one dimension the flow keeps the order of points, so each quantile of the start is
    moved to the same quantile of the end.
    """
    quantiles = cdf(np.asarray(z, np.float64), start)
    return np.asarray(
        [
            optimize.brentq(lambda y, q=q: cdf(y, end) - q, -12, 12, xtol=1e-12)
            for q in quantiles
        ]
    )


def flow_error(schedule, method, num_steps, grid=samplers.TRAINING_GRID):
    """Return the mean distance of a sampler's end points to those of the exact flow."""
    key, row = jax.random.key(0), jnp.arange(16)
    z_0 = samplers.sample(
        denoise,
        (8,),
        row,
        key,
        schedule=schedule,
        method=method,
        num_steps=num_steps,
        grid=grid,
    )
    z_1 = np.ravel(rng.normal(rng.stream(key, "z_1"), row, (8,)))
    expected = transport(z_1, *grid.ends(schedule))
    return np.mean(np.abs(np.ravel(z_0) - expected))
