"""The forward process, its posteriors and its KL divergences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import gaussian

LOGSNR = jnp.linspace(-12.0, 12.0, 25)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_process_preserves_variance_and_has_the_given_logsnr():
    a, s = gaussian.alpha(LOGSNR), gaussian.sigma(LOGSNR)
    np.testing.assert_allclose(a**2 + s**2, 1.0, atol=1e-6)
    np.testing.assert_allclose(2 * jnp.log(a / s), LOGSNR, atol=1e-5)


def test_the_encoder_noise_of_the_paper():
    np.testing.assert_allclose(gaussian.alpha(5.0), 0.9966, atol=5e-5)
    np.testing.assert_allclose(gaussian.sigma(5.0), 0.0818, atol=5e-5)


def test_corrupt_takes_one_noise_level_per_row():
    x, eps = normal(0, 3, 2, 2, 1), normal(1, 3, 2, 2, 1)
    z = gaussian.corrupt(x, eps, jnp.asarray([-30.0, 0.0, 30.0]))
    np.testing.assert_allclose(z[0], eps[0], atol=1e-5)
    np.testing.assert_allclose(z[1], (x[1] + eps[1]) / np.sqrt(2.0), atol=1e-5)
    np.testing.assert_allclose(z[2], x[2], atol=1e-5)


@pytest.mark.parametrize(("t", "s"), [(-4.0, 1.0), (0.0, 0.5), (-10.0, 5.0)])
def test_a_draw_from_the_posterior_has_the_marginal_distribution(t, s):
    """Drawing z_t | x and then z_s | z_t, x gives mean alpha_s x, variance sigma_s^2."""
    x = jnp.full((1 << 17, 1), 0.7)
    z_t = gaussian.corrupt(x, normal(0, *x.shape), t)
    mean, variance = gaussian.posterior(z_t, x, t, s)
    z_s = mean + jnp.sqrt(variance) * normal(1, *x.shape)
    std = float(gaussian.sigma(s))
    sem = std / np.sqrt(x.size)
    assert abs(float(z_s.mean()) - 0.7 * float(gaussian.alpha(s))) < 4 * sem
    assert abs(float(z_s.std()) - std) < 4 * sem / np.sqrt(2)


@pytest.mark.parametrize(
    ("t", "s", "r"), [(-10.0, -2.0, 5.0), (-1.0, 0.0, 0.3), (-6.0, 4.9, 5.0)]
)
def test_posteriors_compose(t, s, r):
    """q(z_s | z_t, x) followed by q(z_r | z_s, x) is q(z_r | z_t, x), in closed form."""
    x, z_t = normal(0, 4, 3), normal(1, 4, 3)
    mean_s, variance_s = gaussian.posterior(z_t, x, t, s)
    mean, variance = gaussian.posterior(mean_s, x, s, r)
    # The mean is linear in z_s, so the variance of z_s enters with the squared slope.
    slope = gaussian.posterior(mean_s + 1.0, x, s, r)[0] - mean
    expected_mean, expected = gaussian.posterior(z_t, x, t, r)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-5)
    np.testing.assert_allclose(variance + slope**2 * variance_s, expected, rtol=1e-5)


@pytest.mark.parametrize(("t", "s"), [(-10.0, 5.0), (-1.0, -0.9), (2.0, 5.0)])
def test_the_posterior_follows_bayes_rule(t, s):
    """In q(z_s | x) q(z_t | z_s), precisions and precision-weighted means add up."""
    x, z_t = normal(0, 4, 3), normal(1, 4, 3)
    (a_s, s_s), (a_t, s_t) = (
        (np.sqrt(1 / (1 + np.exp(-v))), np.sqrt(1 / (1 + np.exp(v)))) for v in (s, t)
    )
    ratio = a_t / a_s
    noise = s_t**2 - ratio**2 * s_s**2
    precision = 1 / s_s**2 + ratio**2 / noise
    mean, variance = gaussian.posterior(z_t, x, t, s)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-5)
    weighted = a_s * np.asarray(x) / s_s**2 + ratio * np.asarray(z_t) / noise
    np.testing.assert_allclose(mean, weighted / precision, atol=1e-5)


def test_the_posterior_of_a_step_of_width_zero_is_z_t():
    z, x = normal(0, 4, 3), normal(1, 4, 3)
    mean, variance = gaussian.posterior(z, x, 1.0, 1.0)
    np.testing.assert_allclose(mean, z, atol=1e-6)
    np.testing.assert_allclose(variance, 0.0, atol=1e-7)


@pytest.mark.parametrize("logsnr", [-10.0, 0.0, 5.0])
def test_the_kl_equals_the_textbook_formula(logsnr):
    x = normal(0, 5, 4, 3)
    a, s = 1 / (1 + np.exp(-logsnr)), 1 / (1 + np.exp(logsnr))
    expected = 0.5 * np.sum(a * np.asarray(x) ** 2 + s - np.log(s) - 1, axis=(1, 2))
    np.testing.assert_allclose(
        gaussian.kl_standard_normal(x, logsnr), expected, rtol=1e-4, atol=1e-4
    )


def test_a_standard_normal_prior_costs_two_nats_an_element():
    """(sigma_0^2 - 1 - log sigma_0^2) / 2 = 2.007 at z = 0 and logsnr 5."""
    kl = gaussian.kl_standard_normal(jnp.zeros((1, 1)), 5.0)
    np.testing.assert_allclose(kl, 2.007, atol=5e-4)
    bpp = float(kl[0]) * 32**3 / (512**2 * np.log(2))
    np.testing.assert_allclose(bpp, 0.362, atol=5e-4)


def test_sum_elements_is_a_sum_and_not_a_mean():
    np.testing.assert_array_equal(gaussian.sum_elements(jnp.full((2, 3, 5), 2.0)), 30.0)


BREAKS = (
    Break(
        "a mean where a sum belongs",
        "ul/diffusion/gaussian.py",
        "return jnp.sum(x.astype(jnp.float32), axis",
        "return jnp.mean(x.astype(jnp.float32), axis",
        "test_sum_elements_is_a_sum_and_not_a_mean",
    ),
    Break(
        "the KL to N(0, I) without its -1",
        "ul/diffusion/gaussian.py",
        "(jnp.square(x) - 1.0)",
        "jnp.square(x)",
        "test_the_kl_equals_the_textbook_formula",
    ),
    Break(
        "the posterior's variance at t instead of s",
        "ul/diffusion/gaussian.py",
        "jax.nn.sigmoid(-logsnr_s) * c",
        "jax.nn.sigmoid(-logsnr_t) * c",
        "test_the_posterior_follows_bayes_rule",
    ),
)
