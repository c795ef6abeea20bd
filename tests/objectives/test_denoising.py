"""Gaussian data, the exact denoiser: every expectation is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.diffusion import gaussian, time_sampling, weightings
from ul.diffusion.schedules import Cosine, Linear
from ul.objectives.denoising import denoising

N, D = 1 << 15, 4


def data(variance, seed=0):
    key = jax.random.key(seed)
    x = jnp.sqrt(variance) * jax.random.normal(key, (N, D))
    eps = jax.random.normal(jax.random.fold_in(key, 1), (N, D))
    t = time_sampling.stratified(jax.random.fold_in(key, 2), jnp.arange(N) / N)
    return x, t, eps


def exact(variance):
    def denoise(z, logsnr):
        a, s = (gaussian.expand(f(logsnr), z) for f in (gaussian.alpha, gaussian.sigma))
        return a * variance / (a**2 * variance + s**2) * z

    return denoise


def within_four_sem(values, want):
    values = np.asarray(values, np.float64)
    sem = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - want) < 4 * sem, (values.mean(), want, sem)


@pytest.mark.parametrize("variance", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "schedule", [Linear(5.0, -10.0), Cosine(5.0, -10.0), Cosine(5.0, -10.0, -2.0)]
)
def test_the_elbo_integral_is_half_the_log_of_the_gain(variance, schedule):
    """I-MMSE: 1/2 log((1 + s^2 e^max) / (1 + s^2 e^min)) nats an element, on any schedule."""
    x, t, eps = data(variance)
    loss = denoising(
        exact(variance), x, t, eps, schedule=schedule, weight=weightings.elbo
    )
    gain = np.log1p(variance * np.exp(5.0)) - np.log1p(variance * np.exp(-10.0))
    within_four_sem(loss, D * gain / 2)


@pytest.mark.parametrize("logsnr_min", [-10.0, -4.0, 0.0])
def test_the_ideal_prior_on_standard_normal_latents(logsnr_min):
    """Diffusion and terminal term make softplus(5)/2: 3.612 bits an element (method, 2)."""
    x, t, eps = data(1.0)
    schedule = Linear(5.0, logsnr_min)
    diffusion = denoising(
        exact(1.0), x, t, eps, schedule=schedule, weight=weightings.elbo
    )
    terminal = gaussian.kl_standard_normal(x, logsnr_min)
    softplus = np.log1p(np.exp(5.0))
    within_four_sem(diffusion, D * (softplus - np.log1p(np.exp(logsnr_min))) / 2)
    within_four_sem(diffusion + terminal, D * softplus / 2)
    np.testing.assert_allclose(softplus / 2 / np.log(2), 3.612, atol=5e-4)


@pytest.mark.parametrize(("factor", "bias"), [(1.5, 0.0), (2.0, 2.0)])
def test_the_weighted_loss_of_the_zero_denoiser(factor, bias):
    """x_hat = 0: c e^b / 2 (softplus(max - b) - softplus(min - b)) ||x||^2, no noise left."""
    x, t, eps = data(1.0)
    x = jnp.broadcast_to(x[:1], x.shape)
    loss = denoising(
        lambda z, logsnr: jnp.zeros_like(z),
        x,
        t,
        eps,
        schedule=Cosine(12.0, -12.0),
        weight=weightings.Sigmoid(bias, factor),
    )
    span = np.log1p(np.exp(12.0 - bias)) - np.log1p(np.exp(-12.0 - bias))
    want = factor * np.exp(bias) / 2 * span * float(jnp.sum(x[0] ** 2))
    within_four_sem(loss, want)
    # Stratified times: far nearer than the spread of single terms suggests.
    np.testing.assert_allclose(np.mean(loss), want, rtol=1e-3)
