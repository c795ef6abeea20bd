import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.core import rng
from ul.diffusion import gaussian, samplers
from ul.diffusion.guidance import guided
from ul.diffusion.schedules import Linear

Z = jnp.ones((3, 2))
LOGSNR = jnp.asarray([-5.0, 0.0, 5.0])


def conditional(z, logsnr):
    return z * 3.7


def unconditional(z, logsnr):
    return z * 1.3


def at(scale, *interval):
    return guided(conditional, unconditional, scale, *interval)(Z, LOGSNR)


def test_scale_one_is_the_conditional_denoiser():
    np.testing.assert_array_equal(at(1.0), conditional(Z, LOGSNR))


def test_scale_zero_is_the_unconditional_denoiser():
    np.testing.assert_allclose(at(0.0), unconditional(Z, LOGSNR), rtol=1e-6)


def test_scale_two_goes_as_far_again():
    np.testing.assert_allclose(at(2.0), 3.7 + (3.7 - 1.3), rtol=1e-6)


def test_outside_the_interval_nothing_is_guided():
    got = at(2.0, (-1.0, 1.0))
    np.testing.assert_array_equal(got[0], conditional(Z, LOGSNR)[0])
    np.testing.assert_array_equal(got[2], conditional(Z, LOGSNR)[2])
    np.testing.assert_allclose(got[1], 3.7 + (3.7 - 1.3), rtol=1e-6)


def test_linear_in_the_scale():
    np.testing.assert_allclose(at(2.5), (at(1.0) + at(4.0)) / 2, rtol=1e-6)
    np.testing.assert_allclose(at(-1.0), 2 * at(0.0) - at(1.0), rtol=1e-6)


def test_both_ends_of_the_interval_are_inside():
    np.testing.assert_array_equal(at(2.0, (-5.0, 5.0)), at(2.0))
    assert not np.any(at(2.0, (-4.9, 4.9))[0] == at(2.0)[0])


MEAN_C, MEAN_U, STD = 0.7, -0.2, 0.35


def gaussian_denoiser(mean):
    """E[x | z] for x ~ N(mean, STD^2)."""

    def denoise(z, logsnr):
        a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
        return mean + a * STD**2 / (a**2 * STD**2 + s**2) * (z - a * mean)

    return denoise


@pytest.mark.parametrize("scale", [-0.5, 0.5, 1.0, 3.0])
def test_two_gaussians_guide_to_the_geometric_mixture(scale):
    """The score of p_c(z_t)^w p_u(z_t)^(1-w) at every level, whose mean is m_u + w dm.

    By Tweedie x_hat = (z + sigma^2 score) / alpha, in float64 from the two densities.
    """
    logsnr = np.linspace(-6.0, 6.0, 13)
    z = np.random.default_rng(0).normal(size=(13, 5))
    both = guided(gaussian_denoiser(MEAN_C), gaussian_denoiser(MEAN_U), scale)
    got = both(jnp.asarray(z, jnp.float32), jnp.asarray(logsnr, jnp.float32))

    alpha2 = (1 / (1 + np.exp(-logsnr)))[:, None]
    variance = alpha2 * STD**2 + 1 - alpha2

    def score(mean):
        return -(z - np.sqrt(alpha2) * mean) / variance

    tilted = scale * score(MEAN_C) + (1 - scale) * score(MEAN_U)
    # Float32 noise levels, and an alpha of 0.05 to divide by: 2e-5.
    np.testing.assert_allclose(
        got, (z + (1 - alpha2) * tilted) / np.sqrt(alpha2), atol=2e-5
    )
    mean = MEAN_U + scale * (MEAN_C - MEAN_U)
    np.testing.assert_allclose(
        got, gaussian_denoiser(mean)(jnp.float32(z), jnp.float32(logsnr)), atol=1e-5
    )


def test_a_guided_sampler_ends_on_the_guided_gaussian():
    """z_0 = alpha m_w + std (z_1 - m_1) / std_1, m_w = m_u + w (m_c - m_u)."""
    scale, key, rows = 3.0, jax.random.key(0), jnp.arange(32)
    both = guided(gaussian_denoiser(MEAN_C), gaussian_denoiser(MEAN_U), scale)
    z_0 = samplers.sample(
        both,
        (4,),
        rows,
        key,
        schedule=Linear(5.0, -10.0),
        method="dpmpp_2m",
        num_steps=200,
    )
    z_1 = np.asarray(rng.normal(rng.stream(key, "z_1"), rows, (4,)))
    mean = MEAN_U + scale * (MEAN_C - MEAN_U)
    (m1, s1), (m0, s0) = (
        (np.sqrt(a2) * mean, np.sqrt(a2 * STD**2 + 1 - a2))
        for a2 in (1 / (1 + np.exp(10.0)), 1 / (1 + np.exp(-5.0)))
    )
    # Second order: 200 steps leave a few 1e-4.
    np.testing.assert_allclose(z_0, m0 + s0 * (z_1 - m1) / s1, atol=1e-3)
