"""With the exact denoiser of a Gaussian the samplers have known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.core import rng
from ul.diffusion import gaussian, samplers
from ul.diffusion.schedules import Linear

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
