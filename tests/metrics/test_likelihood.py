"""Exact denoisers of Gaussian images: the bound is their entropy, and splits add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ul.diffusion import gaussian
from ul.diffusion.schedules import Cosine, Linear
from ul.evaluation import bit_plots
from ul.metrics import likelihood, rate_split
from ul.objectives.joint import Networks, prior_nats
from ul.objectives.noise import Draws

ROWS, SHAPE, G = 1 << 12, (2, 4, 1), 1.3
# One standard deviation a pixel, far above a level (1/127.5), far below the clip.
S = np.linspace(0.1, 0.25, 8).reshape(SHAPE).astype(np.float32)
PRIOR, DECODER = Linear(5.0, -10.0), Linear(12.0, -12.0)


def denoise_latent(params, z_t, logsnr, key):
    a, s = (gaussian.expand(f(logsnr), z_t) for f in (gaussian.alpha, gaussian.sigma))
    variance = (G * S)[None] ** 2
    return a * variance / (a**2 * variance + s**2) * z_t


def denoise_image(params, x_t, logsnr, z_0, key):
    """E[x | x_t, z_0]: a product of three Gaussians."""
    a, s = (gaussian.expand(f(logsnr), x_t) for f in (gaussian.alpha, gaussian.sigma))
    a_0, s_0 = gaussian.alpha(5.0), gaussian.sigma(5.0)
    precision = 1 / S[None] ** 2 + (G * a_0 / s_0) ** 2 + (a / s) ** 2
    return (G * a_0 / s_0**2 * z_0 + a / s**2 * x_t) / precision


NETWORKS = Networks(lambda params, x: G * x, denoise_latent, denoise_image)


@pytest.fixture(scope="module")
def batch():
    x = S * np.random.default_rng(0).standard_normal((ROWS, *SHAPE))
    image = np.round((x + 1) * 127.5).astype(np.uint8)
    row = np.arange(ROWS, dtype=np.int32)
    return jnp.asarray(image), jnp.asarray(row), jnp.asarray(row / ROWS, jnp.float32)


def test_the_bound_is_the_entropy_of_the_levels(batch):
    """Tight with exact denoisers: 1/2 log(2 pi e s^2) + log 127.5 a pixel, for levels of
    1/127.5 are fine beside every s."""
    nats = np.asarray(
        likelihood.bound_nats(
            NETWORKS, PRIOR, DECODER, {}, *batch, jax.random.key(0), draws=8
        ),
        np.float64,
    )
    want = np.sum(0.5 * np.log(2 * np.pi * np.e * S**2) + np.log(127.5))
    sem = nats.std(ddof=1) / np.sqrt(ROWS)
    assert abs(nats.mean() - want) < 4 * sem and 4 * sem < 0.03 * want
    bpd, error = likelihood.bits_per_dimension(nats, 8)
    np.testing.assert_allclose(bpd, nats.mean() / 8 / np.log(2))
    np.testing.assert_allclose(error, sem / 8 / np.log(2))


def test_levels_are_certain_without_noise_and_a_guess_with_much(batch):
    image = batch[0][:64]
    x = image.astype(jnp.float32) / 127.5 - 1
    clear = likelihood.discretised_nats(image, gaussian.alpha(20.0) * x, 20.0)
    np.testing.assert_allclose(clear, 0.0, atol=1e-3)
    eps = jax.random.normal(jax.random.key(0), x.shape)
    blind = likelihood.discretised_nats(image, gaussian.corrupt(x, eps, -20.0), -20.0)
    np.testing.assert_allclose(blind, 8 * np.log(256), rtol=1e-3)


@pytest.mark.parametrize("schedule", [PRIOR, Cosine(5.0, -10.0)])
def test_every_split_has_the_sum_of_the_rate(batch, schedule):
    image, row, stratum = batch
    key, draws = jax.random.key(0), 3
    found = rate_split.split(
        NETWORKS, schedule, {}, image, row, stratum, key, draws=draws
    )
    again = [
        prior_nats(
            lambda z_t, logsnr: denoise_latent({}, z_t, logsnr, None),
            G * (image.astype(jnp.float32) / 127.5 - 1),
            Draws(key, key, row, stratum).repeated(n, draws),
            schedule,
        )
        for n in range(draws)
    ]
    prior = np.mean([a["prior"] for a in again], axis=0)
    for split in (found.level, found.channel, found.place):
        total = np.asarray(split).reshape(ROWS, -1).sum(1)
        np.testing.assert_allclose(total, prior, rtol=1e-4)
    np.testing.assert_allclose(found.terminal, again[0]["terminal"], rtol=1e-4)


def test_bits_lie_where_the_variance_is_and_where_the_noise_is(batch):
    """Each pixel costs 1/2 log(1 + g^2 s^2 e^5), each level 1/2 v e^l / (1 + v e^l)."""
    found = jax.device_get(
        rate_split.split(NETWORKS, PRIOR, {}, *batch, jax.random.key(0), draws=16)
    )
    shares = rate_split.shares(found, PRIOR, pixels=8)
    gain = (G * S) ** 2
    want = 0.5 * np.log2((1 + gain * np.exp(5.0)) / (1 + gain * np.exp(-10.0)))
    np.testing.assert_allclose(shares.place.mean(0), want[..., 0], rtol=0.03)
    level = gain[None] * np.exp(shares.logsnr)[:, None, None, None]
    each = (0.5 * level / (1 + level)).sum((1, 2, 3)) / 8 / np.log(2)
    assert np.all(np.abs(shares.level - each) < 4 * shares.level_sem + 0.01 * each)
    width = 15.0 / rate_split.LEVELS
    np.testing.assert_allclose(
        shares.level.sum() * width, shares.channel.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(shares.place.mean(), shares.channel.sum(), rtol=1e-5)


def test_maps_cover_the_pixels_they_stand_for():
    place = np.arange(4.0).reshape(1, 2, 2)
    big = rate_split.enlarged(place, (4, 6))
    assert big.shape == (1, 4, 6)
    np.testing.assert_array_equal(big[0, :2, :3], 0.0)
    np.testing.assert_array_equal(big[0, 2:, 3:], 3.0)


def test_pictures_are_png(batch):
    image = np.asarray(batch[0][:6])
    found = jax.device_get(
        rate_split.split(
            NETWORKS, PRIOR, {}, *(b[:6] for b in batch), jax.random.key(0), draws=1
        )
    )
    shares = rate_split.shares(found, PRIOR, pixels=8)
    for png in (bit_plots.curves(shares), bit_plots.maps(image, shares.place)):
        assert png.startswith(b"\x89PNG")
