"""The denoising loss on Gaussian data with the exact denoiser, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import gaussian, time_sampling, weightings
from ul.diffusion.schedules import Cosine, Linear
from ul.objectives.denoising import denoising_loss

NUM_ROWS, D = 1 << 15, 4


def data(variance, seed=0):
    key = jax.random.key(seed)
    x = jnp.sqrt(variance) * jax.random.normal(key, (NUM_ROWS, D))
    eps = jax.random.normal(jax.random.fold_in(key, 1), (NUM_ROWS, D))
    t = time_sampling.sample_stratified(
        jax.random.fold_in(key, 2), jnp.arange(NUM_ROWS) / NUM_ROWS
    )
    return x, t, eps


def exact_denoiser(variance):
    """Return E[x | z_t] for x ~ N(0, variance)."""

    def denoise(z, logsnr):
        a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
        return a * variance / (a**2 * variance + s**2) * z

    return denoise


def assert_mean_within_four_sem(values, expected):
    values = np.asarray(values, np.float64)
    sem = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * sem, (values.mean(), expected, sem)


@pytest.mark.parametrize("variance", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "schedule", [Linear(5.0, -10.0), Cosine(5.0, -10.0), Cosine(5.0, -10.0, -2.0)]
)
def test_the_elbo_integral_on_gaussian_data(variance, schedule):
    """I-MMSE: 1/2 log((1 + s^2 e^max) / (1 + s^2 e^min)) nats per element."""
    x, t, eps = data(variance)
    loss = denoising_loss(
        exact_denoiser(variance), x, t, eps, schedule=schedule, weight=weightings.elbo
    )
    gain = np.log1p(variance * np.exp(5.0)) - np.log1p(variance * np.exp(-10.0))
    assert_mean_within_four_sem(loss, D * gain / 2)


@pytest.mark.parametrize("logsnr_min", [-10.0, -4.0, 0.0])
def test_the_ideal_prior_on_standard_normal_latents(logsnr_min):
    """Denoising and terminal term sum to softplus(5)/2 nats: 3.612 bits per element."""
    x, t, eps = data(1.0)
    schedule = Linear(5.0, logsnr_min)
    denoising = denoising_loss(
        exact_denoiser(1.0), x, t, eps, schedule=schedule, weight=weightings.elbo
    )
    terminal = gaussian.kl_standard_normal(x, logsnr_min)
    softplus = np.log1p(np.exp(5.0))
    assert_mean_within_four_sem(
        denoising, D * (softplus - np.log1p(np.exp(logsnr_min))) / 2
    )
    assert_mean_within_four_sem(denoising + terminal, D * softplus / 2)
    np.testing.assert_allclose(softplus / 2 / np.log(2), 3.612, atol=5e-4)


@pytest.mark.parametrize(("factor", "bias"), [(1.5, 0.0), (2.0, 2.0)])
def test_the_weighted_loss_of_the_zero_denoiser(factor, bias):
    """x_hat = 0 gives c e^b / 2 (softplus(max - b) - softplus(min - b)) ||x||^2."""
    x, t, eps = data(1.0)
    x = jnp.broadcast_to(x[:1], x.shape)
    loss = denoising_loss(
        lambda z, logsnr: jnp.zeros_like(z),
        x,
        t,
        eps,
        schedule=Cosine(12.0, -12.0),
        weight=weightings.Sigmoid(bias, factor),
    )
    span = np.log1p(np.exp(12.0 - bias)) - np.log1p(np.exp(-12.0 - bias))
    expected = factor * np.exp(bias) / 2 * span * float(jnp.sum(x[0] ** 2))
    assert_mean_within_four_sem(loss, expected)
    # Stratified times: the mean is far closer than the variance of the terms suggests.
    np.testing.assert_allclose(np.mean(loss), expected, rtol=1e-3)


BREAKS = (
    Break(
        "an x error where an eps error belongs",
        "ul/objectives/denoising.py",
        " * weight(logsnr) * jnp.exp(logsnr)",
        " * weight(logsnr)",
        "test_the_elbo_integral_on_gaussian_data",
    ),
    Break(
        "the loss factor forgotten",
        "ul/diffusion/weightings.py",
        "return self.factor * jax",
        "return jax",
        "test_the_weighted_loss_of_the_zero_denoiser",
    ),
)
