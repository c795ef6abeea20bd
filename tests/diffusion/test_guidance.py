"""Classifier-free guidance and autoguidance of denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core import rng
from ul.diffusion import gaussian, samplers
from ul.diffusion.guidance import guide
from ul.diffusion.schedules import Linear

Z = jnp.ones((3, 2))
LOGSNR = jnp.asarray([-5.0, 0.0, 5.0])


def conditional(z, logsnr):
    return z * 3.7


def unconditional(z, logsnr):
    return z * 1.3


def guided(scale, *interval):
    return guide(conditional, unconditional, scale, *interval)(Z, LOGSNR)


def test_scale_one_is_the_conditional_denoiser():
    np.testing.assert_array_equal(guided(1.0), conditional(Z, LOGSNR))


def test_scale_zero_is_the_unconditional_denoiser():
    np.testing.assert_allclose(guided(0.0), unconditional(Z, LOGSNR), rtol=1e-6)


def test_scale_two_doubles_the_difference():
    np.testing.assert_allclose(guided(2.0), 3.7 + (3.7 - 1.3), rtol=1e-6)


def test_guidance_acts_only_inside_the_interval():
    x = guided(2.0, (-1.0, 1.0))
    np.testing.assert_array_equal(x[0], conditional(Z, LOGSNR)[0])
    np.testing.assert_array_equal(x[2], conditional(Z, LOGSNR)[2])
    np.testing.assert_allclose(x[1], 3.7 + (3.7 - 1.3), rtol=1e-6)


def test_guidance_is_linear_in_the_scale():
    np.testing.assert_allclose(guided(2.5), (guided(1.0) + guided(4.0)) / 2, rtol=1e-6)
    np.testing.assert_allclose(guided(-1.0), 2 * guided(0.0) - guided(1.0), rtol=1e-6)


def test_the_interval_includes_both_ends():
    np.testing.assert_array_equal(guided(2.0, (-5.0, 5.0)), guided(2.0))
    assert not np.any(guided(2.0, (-4.9, 4.9))[0] == guided(2.0)[0])


def test_the_guiding_denoiser_is_not_evaluated_outside_the_interval():
    calls = []

    def counted(z, logsnr):
        jax.debug.callback(lambda level: calls.append(float(level)), logsnr[0])
        return unconditional(z, logsnr)

    denoise = jax.jit(guide(conditional, counted, 2.0, (-1.0, 1.0)))
    for level in (-2.0, -1.0, 0.5, 1.5):
        denoise(Z, jnp.full(3, level)).block_until_ready()
    jax.effects_barrier()
    assert calls == [-1.0, 0.5]


MEAN_C, MEAN_U, STD = 0.7, -0.2, 0.35


def gaussian_denoiser(mean):
    """Return E[x | z] for x ~ N(mean, STD^2)."""

    def denoise(z, logsnr):
        a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
        return mean + a * STD**2 / (a**2 * STD**2 + s**2) * (z - a * mean)

    return denoise


@pytest.mark.parametrize("scale", [-0.5, 0.5, 1.0, 3.0])
def test_two_gaussians_guide_to_the_geometric_mixture(scale):
    """Guidance gives the score of p_c(z_t)^w p_u(z_t)^(1-w) at every noise level.

    The mean of that density is m_u + w (m_c - m_u). The expected x_hat is (z + sigma^2
    score) / alpha (Tweedie), in float64 from the two densities.
    """
    logsnr = np.linspace(-6.0, 6.0, 13)
    z = np.random.default_rng(0).normal(size=(13, 5))
    denoise = guide(gaussian_denoiser(MEAN_C), gaussian_denoiser(MEAN_U), scale)
    x_hat = denoise(jnp.asarray(z, jnp.float32), jnp.asarray(logsnr, jnp.float32))

    alpha2 = (1 / (1 + np.exp(-logsnr)))[:, None]
    variance = alpha2 * STD**2 + 1 - alpha2

    def score(mean):
        return -(z - np.sqrt(alpha2) * mean) / variance

    tilted = scale * score(MEAN_C) + (1 - scale) * score(MEAN_U)
    # Float32 noise levels, divided by an alpha of down to 0.05, cost 2e-5.
    np.testing.assert_allclose(
        x_hat, (z + (1 - alpha2) * tilted) / np.sqrt(alpha2), atol=2e-5
    )
    mean = MEAN_U + scale * (MEAN_C - MEAN_U)
    np.testing.assert_allclose(
        x_hat, gaussian_denoiser(mean)(jnp.float32(z), jnp.float32(logsnr)), atol=1e-5
    )


def test_a_guided_sampler_samples_the_guided_gaussian():
    """z_0 = alpha m_w + std (z_1 - m_1) / std_1 with m_w = m_u + w (m_c - m_u)."""
    scale, key, row = 3.0, jax.random.key(0), jnp.arange(32)
    denoise = guide(gaussian_denoiser(MEAN_C), gaussian_denoiser(MEAN_U), scale)
    z_0 = samplers.sample(
        denoise,
        (4,),
        row,
        key,
        schedule=Linear(5.0, -10.0),
        method="dpmpp_2m",
        num_steps=200,
    )
    z_1 = np.asarray(rng.normal(rng.stream(key, "z_1"), row, (4,)))
    mean = MEAN_U + scale * (MEAN_C - MEAN_U)
    (m1, s1), (m0, s0) = (
        (np.sqrt(a2) * mean, np.sqrt(a2 * STD**2 + 1 - a2))
        for a2 in (1 / (1 + np.exp(10.0)), 1 / (1 + np.exp(-5.0)))
    )
    # The method is of second order: 200 steps leave an error of a few 1e-4.
    np.testing.assert_allclose(z_0, m0 + s0 * (z_1 - m1) / s1, atol=1e-3)


BREAKS = (
    Break(
        "guidance away from the condition",
        "ul/diffusion/guidance.py",
        "extra * (x - guiding_denoiser(z_t, logsnr))",
        "extra * (guiding_denoiser(z_t, logsnr) - x)",
        "test_scale_two_doubles_the_difference",
    ),
    Break(
        "the guiding denoiser evaluated at every level",
        "ul/diffusion/guidance.py",
        "jax.lax.cond(jnp.any(inside), guided, lambda: x)",
        "guided()",
        "test_the_guiding_denoiser_is_not_evaluated_outside_the_interval",
    ),
    Break(
        "guidance of scale w + 1",
        "ul/diffusion/guidance.py",
        "jnp.where(inside, scale - 1.0",
        "jnp.where(inside, scale",
        "test_scale_one_is_the_conditional_denoiser",
    ),
)
