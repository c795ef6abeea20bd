"""The exact denoiser and marginals of a one-dimensional Gaussian mixture.

    python -m tests.lib.mixture

prints the errors of samplers and grids, the table of experiments/RESULTS.md.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from ul.core import markdown, rng
from ul.diffusion import gaussian, samplers, sampling_grids, schedules
from ul.evaluation import sampler_comparison
from ul.metrics import logsnr_curve

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
    z_0, expected = end_points(schedule, method, num_steps, grid, 16)
    return np.mean(np.abs(z_0 - expected))


def end_points(schedule, method, num_steps, grid, num_rows):
    """Return what a sampler and the exact flow make of the same noise, 8 values per row."""
    key, row = jax.random.key(0), jnp.arange(num_rows)
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
    return np.ravel(z_0), transport(z_1, *grid.ends(schedule))


def nats_per_logsnr(schedule, count=4096):
    """Return the curve of `logsnr_curve`, from which the adaptive grid follows."""
    generator = np.random.default_rng(0)
    part = generator.choice(2, p=WEIGHTS, size=(count, 1))
    x = MEANS[part] + STDS[part] * generator.normal(size=part.shape)
    nats = logsnr_curve.nats_per_logsnr(
        denoise, jnp.float32(x), jnp.arange(count), jax.random.key(0), schedule
    )
    return tuple(np.asarray(nats.mean(0), np.float64).tolist())


def frechet(z, logsnr):
    """Return the Frechet distance of samples [N] to the exact moments of z_t."""
    means, stds = marginal(logsnr)
    mean = WEIGHTS @ means
    std = np.sqrt(WEIGHTS @ (stds**2 + means**2) - mean**2)
    return (z.mean() - mean) ** 2 + (z.std() - std) ** 2


def table(pairs, nfe, num_rows=512):
    """Return a Markdown table of distance and Frechet distance of pairs GRID:KIND."""
    schedule = schedules.Cosine(12.0, -12.0)
    curve, ends = nats_per_logsnr(schedule), (9.0, -8.0)
    names = [f"{name}, NFE {n}" for name in ("distance", "Frechet") for n in nfe]
    rows = [["grid:kind", *names]]
    for pair, (name, method) in zip(
        pairs, sampler_comparison.parse_pairs(pairs), strict=True
    ):
        grid = sampling_grids.GRIDS[name](*(() if name == "schedule" else ends))
        if name == "adaptive":
            grid = sampling_grids.Adaptive(*ends, curve)
        distances, frechets = [], []
        for count in nfe:
            steps = count // (2 if method in samplers.CORRECTIONS else 1)
            z_0, expected = end_points(schedule, method, steps, grid, num_rows)
            distance = np.sqrt(np.mean(np.square(z_0 - expected)))
            is_random = method in samplers.STOCHASTIC
            distances.append("" if is_random else f"{distance:.4f}")
            frechets.append(f"{frechet(z_0, grid.ends(schedule)[1]):.5f}")
        rows.append([pair, *distances, *frechets])
    return markdown.table(rows, align_right=True)


if __name__ == "__main__":
    sys.stdout.write(table(sampler_comparison.DEFAULT_PAIRS, (4, 8, 16, 50)) + "\n")
