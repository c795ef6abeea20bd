"""With the exact denoiser of a Gaussian, or of a mixture, the answers are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import mixture
from ul.core import rng
from ul.diffusion import gaussian, samplers
from ul.diffusion.schedules import Cosine, Linear

MEAN, STD = 0.8, 0.4
SCHEDULE = Linear(5.0, -10.0)


def denoise(z, logsnr):
    """E[x | z] for x ~ N(MEAN, STD^2)."""
    a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
    return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (z - a * MEAN)


def draw(method, num_steps, rows=2048, shape=(8,)):
    return samplers.sample(
        denoise,
        shape,
        jnp.arange(rows),
        jax.random.key(0),
        schedule=SCHEDULE,
        method=method,
        num_steps=num_steps,
    )


@pytest.mark.parametrize("method", sorted(samplers.METHODS))
def test_ends_as_the_noisy_z_0(method):
    """alpha MEAN and alpha^2 STD^2 + sigma^2 at logsnr 5: the noise is still there."""
    z_0 = draw(method, 400)
    a, s = float(gaussian.alpha(5.0)), float(gaussian.sigma(5.0))
    want = np.sqrt(a**2 * STD**2 + s**2)
    sem = want / np.sqrt(z_0.size)
    # 400 steps leave a discretisation error below a third of a standard error.
    assert abs(float(z_0.mean()) - a * MEAN) < 4 * sem
    assert abs(float(z_0.std()) - want) < 4 * sem / np.sqrt(2)


def test_the_noise_left_is_that_of_logsnr_5_when_the_data_are_a_point():
    """x = MEAN for sure: z_0 - alpha MEAN is exactly sigma times standard noise."""
    z_0 = samplers.sample(
        lambda z, logsnr: jnp.full_like(z, MEAN),
        (8,),
        jnp.arange(2048),
        jax.random.key(0),
        schedule=SCHEDULE,
        method="ancestral",
        num_steps=7,
    )
    left = (z_0 - gaussian.alpha(5.0) * MEAN) / gaussian.sigma(5.0)
    sem = 1 / np.sqrt(left.size)
    assert abs(float(left.mean())) < 4 * sem
    assert abs(float(left.std()) - 1) < 4 * sem / np.sqrt(2)


@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_the_error_falls_with_the_order_of_the_method(method, order):
    """The flow from z_1 is linear here, so the exact end point is known."""
    z_1 = rng.normal(rng.stream(jax.random.key(0), "z_1"), jnp.arange(16), (8,))

    def marginal(logsnr):
        a, s = float(gaussian.alpha(logsnr)), float(gaussian.sigma(logsnr))
        return a * MEAN, np.sqrt(a**2 * STD**2 + s**2)

    (m1, s1), (m0, s0) = marginal(-10.0), marginal(5.0)
    exact = m0 + s0 * (np.asarray(z_1) - m1) / s1
    errors = [
        np.abs(np.asarray(draw(method, n, rows=16)) - exact).max() for n in (40, 80)
    ]
    assert np.log2(errors[0] / errors[1]) > order - 0.25


def test_a_sample_depends_on_its_row_alone():
    whole = draw("ancestral", 5, rows=6)
    part = samplers.sample(
        denoise,
        (8,),
        jnp.asarray([4, 2]),
        jax.random.key(0),
        schedule=SCHEDULE,
        method="ancestral",
        num_steps=5,
    )
    np.testing.assert_allclose(part, whole[jnp.asarray([4, 2])], atol=1e-6)


# Even steps in logsnr, and uneven ones: the 2M extrapolation knows their ratio.
SHAPES = [SCHEDULE, Cosine(5.0, -10.0)]


def flow(method, num_steps, schedule):
    """End points of the flow for the mixture, and where they belong; [16 * 8]."""
    key, rows = jax.random.key(0), jnp.arange(16)
    got = samplers.sample(
        mixture.denoise,
        (8,),
        rows,
        key,
        schedule=schedule,
        method=method,
        num_steps=num_steps,
    )
    z_1 = rng.normal(rng.stream(key, "z_1"), rows, (8,))
    return np.ravel(got), mixture.transport(np.ravel(z_1), -10.0, 5.0)


@pytest.mark.parametrize("schedule", SHAPES)
@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_the_flow_of_a_mixture_at_the_order_of_the_method(method, order, schedule):
    """Each z_1 ends at its own quantile of the noisy z_0, so the whole law is right."""
    errors = [
        np.mean(np.abs(np.subtract(*flow(method, n, schedule)))) for n in (64, 128)
    ]
    assert order - 0.25 < np.log2(errors[0] / errors[1]) < order + 0.35
    assert errors[1] < {1: 1e-2, 2: 1e-3}[order]


def test_2m_extrapolates_to_the_middle_of_its_step():
    """An estimate that is a line in logsnr is used at the step's middle; first, as is."""
    steps = samplers.moves(SHAPES[1], 9)
    z = jnp.ones((1, 1))
    for i in range(9):
        move, last = (jax.tree.map(lambda v, j=j: v[j], steps) for j in (i, i - 1))
        now, before = (jnp.full_like(z, m.logsnr_t) for m in (move, last))
        middle = now if i == 0 else (now + move.logsnr_s) / 2
        np.testing.assert_allclose(
            samplers.dpmpp_2m(z, now, before, move, None),
            samplers.ddim(z, middle, None, move, None),
            rtol=1e-5,
        )


# The narrowest step moved has std 0.03: wide enough for sums over cells to be exact.
GRID = np.linspace(-5.0, 5.0, 501)
CELL = GRID[1] - GRID[0]


@functools.cache
def ancestral_density(num_steps, schedule):
    """The density of z_0 by the sampler's own steps, moved on a grid: nothing is drawn."""
    density = mixture.pdf(GRID, -10.0)
    z = jnp.asarray(GRID, jnp.float32)[:, None]
    steps = samplers.moves(schedule, num_steps)

    @jax.jit
    def law(move):
        """Mean and std of the update from every point."""
        x_hat = mixture.denoise(z, jnp.broadcast_to(move.logsnr_t, z.shape[:1]))
        mean, above = (
            samplers.METHODS["ancestral"](z, x_hat, x_hat, move, lambda e=e: e)
            for e in (jnp.zeros_like(z), jnp.ones_like(z))
        )
        return mean[:, 0], jnp.mean(above - mean)

    for i in range(num_steps):
        mean, std = law(jax.tree.map(lambda v, i=i: v[i], steps))
        mean, std = np.asarray(mean, np.float64), float(std)
        kernel = np.exp(-0.5 * ((GRID - mean[:, None]) / std) ** 2)
        density = density @ kernel * (CELL / (std * np.sqrt(2 * np.pi)))
    return density


def wasserstein(density, logsnr):
    """W1 to the exact marginal at `logsnr`: the area between the two CDFs."""
    ours = np.cumsum(density) * CELL
    return np.sum(np.abs(ours - mixture.cdf(GRID + CELL / 2, logsnr))) * CELL


@pytest.mark.parametrize("schedule", SHAPES)
def test_the_law_of_the_ancestral_sampler_converges_at_order_one(schedule):
    densities = [ancestral_density(n, schedule) for n in (24, 48, 96)]
    for density in densities:
        np.testing.assert_allclose(np.sum(density) * CELL, 1.0, atol=1e-4)
    errors = [wasserstein(density, 5.0) for density in densities]
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 0.85 < np.log2(coarse / fine) < 1.15


def test_stopping_at_logsnr_5_leaves_exactly_that_noise():
    """Variance and whole CDF of z_0 are those of alpha x + sigma eps, not of x.

    Three step counts extrapolate to none: the errors of order one and two are gone.
    """
    fine, half, coarse = (ancestral_density(n, SCHEDULE) for n in (96, 48, 24))
    density = (8 * fine - 6 * half + coarse) / 3

    def variance(p):
        mean = np.sum(p * GRID) * CELL
        return np.sum(p * (GRID - mean) ** 2) * CELL

    squares = mixture.WEIGHTS @ (mixture.MEANS**2 + mixture.STDS**2)
    spread = squares - (mixture.WEIGHTS @ mixture.MEANS) ** 2
    a2, s2 = float(gaussian.alpha(5.0)) ** 2, float(gaussian.sigma(5.0)) ** 2
    np.testing.assert_allclose(variance(density), a2 * spread + s2, atol=s2 / 50)
    noisy = wasserstein(density, 5.0)
    assert noisy < wasserstein(density, np.inf) / 20
