"""Samplers with the exact denoiser of a Gaussian or a mixture, whose results are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import mixture
from tests.lib.breaks import Break
from ul.core import rng
from ul.diffusion import gaussian, samplers
from ul.diffusion.schedules import Cosine, Linear

MEAN, STD = 0.8, 0.4
SCHEDULE = Linear(5.0, -10.0)


def denoise(z, logsnr):
    """Return E[x | z] for x ~ N(MEAN, STD^2)."""
    a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
    return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (z - a * MEAN)


def draw(method, num_steps, num_rows=2048, shape=(8,)):
    return samplers.sample(
        denoise,
        shape,
        jnp.arange(num_rows),
        jax.random.key(0),
        schedule=SCHEDULE,
        method=method,
        num_steps=num_steps,
    )


@pytest.mark.parametrize("method", sorted(samplers.METHODS))
def test_a_sampler_returns_the_noisy_z_0(method):
    """Mean alpha MEAN and variance alpha^2 STD^2 + sigma^2 at logsnr 5, noise included."""
    z_0 = draw(method, 400)
    a, s = float(gaussian.alpha(5.0)), float(gaussian.sigma(5.0))
    std = np.sqrt(a**2 * STD**2 + s**2)
    sem = std / np.sqrt(z_0.size)
    # With 400 steps the discretization error is below a third of a standard error.
    assert abs(float(z_0.mean()) - a * MEAN) < 4 * sem
    assert abs(float(z_0.std()) - std) < 4 * sem / np.sqrt(2)


def test_the_remaining_noise_has_logsnr_5_for_constant_data():
    """If x is always MEAN, z_0 - alpha MEAN is exactly sigma times standard noise."""
    z_0 = samplers.sample(
        lambda z, logsnr: jnp.full_like(z, MEAN),
        (8,),
        jnp.arange(2048),
        jax.random.key(0),
        schedule=SCHEDULE,
        method="ancestral",
        num_steps=7,
    )
    eps = (z_0 - gaussian.alpha(5.0) * MEAN) / gaussian.sigma(5.0)
    sem = 1 / np.sqrt(eps.size)
    assert abs(float(eps.mean())) < 4 * sem
    assert abs(float(eps.std()) - 1) < 4 * sem / np.sqrt(2)


ORDERS = [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2)]


@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_the_error_falls_with_the_order_of_the_method(method, order):
    """For a Gaussian the flow from z_1 is linear, so its exact end point is known."""
    z_1 = rng.normal(rng.stream(jax.random.key(0), "z_1"), jnp.arange(16), (8,))

    def marginal(logsnr):
        a, s = float(gaussian.alpha(logsnr)), float(gaussian.sigma(logsnr))
        return a * MEAN, np.sqrt(a**2 * STD**2 + s**2)

    (m1, s1), (m0, s0) = marginal(-10.0), marginal(5.0)
    expected = m0 + s0 * (np.asarray(z_1) - m1) / s1
    errors = [
        np.abs(np.asarray(draw(method, n, num_rows=16)) - expected).max()
        for n in (40, 80)
    ]
    assert np.log2(errors[0] / errors[1]) > order - 0.25


def test_the_second_order_draw_is_the_ancestral_one_where_nothing_changes():
    x_hat, z = jnp.full((2, 3), 0.7), jnp.full((2, 3), -0.2)
    step = jax.tree.map(lambda v: v[4], samplers.sampler_steps(SCHEDULES[1], 9))
    draws = [
        samplers.METHODS[name](z, x_hat, x_hat, step, lambda: jnp.full((2, 3), 0.5))
        for name in ("ancestral", "dpmpp_2m_sde")
    ]
    np.testing.assert_array_equal(*draws)


def test_a_sample_depends_on_its_row_alone():
    full = draw("ancestral", 5, num_rows=6)
    part = samplers.sample(
        denoise,
        (8,),
        jnp.asarray([4, 2]),
        jax.random.key(0),
        schedule=SCHEDULE,
        method="ancestral",
        num_steps=5,
    )
    np.testing.assert_allclose(part, full[jnp.asarray([4, 2])], atol=1e-6)


# Steps that are even in logsnr, and uneven ones, whose ratio the 2M extrapolation uses.
SCHEDULES = [SCHEDULE, Cosine(5.0, -10.0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_the_flow_of_a_mixture_converges_at_the_order_of_the_method(
    method, order, schedule
):
    """Each z_1 ends at its own quantile of z_0, so the whole distribution is right."""
    errors = []
    for num_steps in (64, 128):
        errors.append(mixture.flow_error(schedule, method, num_steps))
    assert order - 0.25 < np.log2(errors[0] / errors[1]) < order + 0.35
    assert errors[1] < {1: 1e-2, 2: 1e-3}[order]


def test_2m_extrapolates_to_the_middle_of_its_step():
    """An x_hat linear in logsnr is used at the step's middle; unchanged in the first."""
    steps = samplers.sampler_steps(SCHEDULES[1], 9)
    z = jnp.ones((1, 1))
    for i in range(9):
        step, previous = (jax.tree.map(lambda v, j=j: v[j], steps) for j in (i, i - 1))
        x_hat, previous_x_hat = (jnp.full_like(z, s.logsnr_t) for s in (step, previous))
        middle = x_hat if i == 0 else (x_hat + step.logsnr_s) / 2
        np.testing.assert_allclose(
            samplers.dpmpp_2m(z, x_hat, previous_x_hat, step, None),
            samplers.ddim(z, middle, None, step, None),
            rtol=1e-5,
        )


# The narrowest transition has std 0.03, wide enough for sums over cells to be exact.
GRID = np.linspace(-5.0, 5.0, 501)
CELL_WIDTH = GRID[1] - GRID[0]


@functools.cache
def ancestral_density(num_steps, schedule):
    """Return the density of z_0 by applying the sampler's steps to a density on a grid."""
    density = mixture.pdf(GRID, -10.0)
    z = jnp.asarray(GRID, jnp.float32)[:, None]
    steps = samplers.sampler_steps(schedule, num_steps)

    @jax.jit
    def transition(step):
        """Return the mean and std of the update from every point."""
        x_hat = mixture.denoise(z, jnp.broadcast_to(step.logsnr_t, z.shape[:1]))
        mean, mean_plus_std = (
            samplers.METHODS["ancestral"](z, x_hat, x_hat, step, lambda e=e: e)
            for e in (jnp.zeros_like(z), jnp.ones_like(z))
        )
        return mean[:, 0], jnp.mean(mean_plus_std - mean)

    for i in range(num_steps):
        mean, std = transition(jax.tree.map(lambda v, i=i: v[i], steps))
        mean, std = np.asarray(mean, np.float64), float(std)
        kernel = np.exp(-0.5 * ((GRID - mean[:, None]) / std) ** 2)
        density = density @ kernel * (CELL_WIDTH / (std * np.sqrt(2 * np.pi)))
    return density


def wasserstein(density, logsnr):
    """Return W1 to the exact marginal at `logsnr`: the area between the two CDFs."""
    cdf = np.cumsum(density) * CELL_WIDTH
    return np.sum(np.abs(cdf - mixture.cdf(GRID + CELL_WIDTH / 2, logsnr))) * CELL_WIDTH


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_distribution_of_the_ancestral_sampler_converges_at_order_one(schedule):
    densities = [ancestral_density(n, schedule) for n in (24, 48, 96)]
    for density in densities:
        np.testing.assert_allclose(np.sum(density) * CELL_WIDTH, 1.0, atol=1e-4)
    errors = [wasserstein(density, 5.0) for density in densities]
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 0.85 < np.log2(coarse / fine) < 1.15


def test_stopping_at_logsnr_5_leaves_exactly_that_noise():
    """The variance and the CDF of z_0 are those of alpha x + sigma eps, not those of x.

    Extrapolation from three step counts removes the errors of order one and two.
    """
    fine, half, coarse = (ancestral_density(n, SCHEDULE) for n in (96, 48, 24))
    density = (8 * fine - 6 * half + coarse) / 3

    def variance(p):
        mean = np.sum(p * GRID) * CELL_WIDTH
        return np.sum(p * (GRID - mean) ** 2) * CELL_WIDTH

    squares = mixture.WEIGHTS @ (mixture.MEANS**2 + mixture.STDS**2)
    data_variance = squares - (mixture.WEIGHTS @ mixture.MEANS) ** 2
    a2, s2 = float(gaussian.alpha(5.0)) ** 2, float(gaussian.sigma(5.0)) ** 2
    np.testing.assert_allclose(variance(density), a2 * data_variance + s2, atol=s2 / 50)
    distance = wasserstein(density, 5.0)
    assert distance < wasserstein(density, np.inf) / 20


BREAKS = (
    Break(
        "the last prediction returned instead of the noisy z_0",
        "ul/diffusion/samplers.py",
        "    return z_0\n",
        "    return _\n",
        "test_a_sampler_returns_the_noisy_z_0",
    ),
    Break(
        "a correction with the prediction at the end of the step alone",
        "ul/diffusion/samplers.py",
        "x_hat + weight * (next_x_hat - x_hat)",
        "next_x_hat",
        "test_the_flow_of_a_mixture_converges_at_the_order_of_the_method",
    ),
    Break(
        "2M extrapolates twice as far",
        "ul/diffusion/samplers.py",
        "width / (2.0 * previous)",
        "width / previous",
        "test_2m_extrapolates_to_the_middle_of_its_step",
    ),
    Break(
        "DDIM moves by the whole rise of the log-SNR",
        "ul/diffusion/samplers.py",
        "h = (step.logsnr_s - step.logsnr_t) / 2.0\n    ratio",
        "h = step.logsnr_s - step.logsnr_t\n    ratio",
        "test_the_flow_of_a_mixture_converges_at_the_order_of_the_method",
    ),
    Break(
        "a variance where a standard deviation belongs",
        "ul/diffusion/samplers.py",
        "jnp.sqrt(variance) * draw_eps()",
        "variance * draw_eps()",
        "test_the_distribution_of_the_ancestral_sampler_converges_at_order_one",
    ),
    Break(
        "the same noise at every sampling step",
        "ul/diffusion/samplers.py",
        '"step", step.number',
        '"step", 0',
        "test_the_remaining_noise_has_logsnr_5_for_constant_data",
    ),
)
