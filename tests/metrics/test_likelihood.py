"""With the optimal denoisers of Gaussian images, bound and rate have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.diffusion import gaussian
from ul.diffusion.schedules import Cosine, Linear
from ul.evaluation import bit_plots
from ul.metrics import likelihood, rate_split
from ul.objectives.joint import JointNetworks, prior_nats
from ul.objectives.noise import BatchNoise

ROWS, SHAPE, G = 1 << 12, (2, 4, 1), 1.3
# A standard deviation per pixel, far above one level (1/127.5) and far below the clipping.
STD = np.linspace(0.1, 0.25, 8).reshape(SHAPE).astype(np.float32)
PRIOR, DECODER = Linear(5.0, -10.0), Linear(12.0, -12.0)


def denoise_latent(params, z_t, logsnr, key):
    """Return E[z | z_t] for the latents G x."""
    a, s = (gaussian.expand(f(logsnr), z_t) for f in (gaussian.alpha, gaussian.sigma))
    variance = (G * STD)[None] ** 2
    return a * variance / (a**2 * variance + s**2) * z_t


def denoise_image(params, x_t, logsnr, z_0, key):
    """Return E[x | x_t, z_0], from the product of three Gaussians."""
    a, s = (gaussian.expand(f(logsnr), x_t) for f in (gaussian.alpha, gaussian.sigma))
    a_0, s_0 = gaussian.alpha(5.0), gaussian.sigma(5.0)
    precision = 1 / STD[None] ** 2 + (G * a_0 / s_0) ** 2 + (a / s) ** 2
    return (G * a_0 / s_0**2 * z_0 + a / s**2 * x_t) / precision


NETWORKS = JointNetworks(lambda params, x: G * x, denoise_latent, denoise_image)


@pytest.fixture(scope="module")
def batch():
    x = STD * np.random.default_rng(0).standard_normal((ROWS, *SHAPE))
    image = np.round((x + 1) * 127.5).astype(np.uint8)
    row = np.arange(ROWS, dtype=np.int32)
    return jnp.asarray(image), jnp.asarray(row), jnp.asarray(row / ROWS, jnp.float32)


def test_the_bound_is_the_entropy_of_the_levels(batch):
    """The bound is tight: 1/2 log(2 pi e s^2) + log 127.5 per pixel.

    This holds because levels of 1/127.5 are fine compared with every standard deviation s.
    """
    nats = np.asarray(
        likelihood.bound_nats(
            NETWORKS, PRIOR, DECODER, {}, *batch, jax.random.key(0), num_draws=8
        ),
        np.float64,
    )
    expected = np.sum(0.5 * np.log(2 * np.pi * np.e * STD**2) + np.log(127.5))
    sem = nats.std(ddof=1) / np.sqrt(ROWS)
    assert abs(nats.mean() - expected) < 4 * sem and 4 * sem < 0.03 * expected
    bpd, error = likelihood.bits_per_dimension(nats, 8)
    np.testing.assert_allclose(bpd, nats.mean() / 8 / np.log(2))
    np.testing.assert_allclose(error, sem / 8 / np.log(2))


def test_levels_are_certain_without_noise_and_uniform_with_much_noise(batch):
    image = batch[0][:64]
    x = image.astype(jnp.float32) / 127.5 - 1
    certain = likelihood.discretized_nats(image, gaussian.alpha(20.0) * x, 20.0)
    np.testing.assert_allclose(certain, 0.0, atol=1e-3)
    eps = jax.random.normal(jax.random.key(0), x.shape)
    uniform = likelihood.discretized_nats(image, gaussian.corrupt(x, eps, -20.0), -20.0)
    np.testing.assert_allclose(uniform, 8 * np.log(256), rtol=1e-3)


@pytest.mark.parametrize("schedule", [PRIOR, Cosine(5.0, -10.0)])
def test_every_split_has_the_sum_of_the_rate(batch, schedule):
    image, row, stratum = batch
    key, num_draws = jax.random.key(0), 3
    nats = rate_split.split_rate_nats(
        NETWORKS, schedule, {}, image, row, stratum, key, num_draws=num_draws
    )
    draws = [
        prior_nats(
            lambda z_t, logsnr: denoise_latent({}, z_t, logsnr, None),
            G * (image.astype(jnp.float32) / 127.5 - 1),
            BatchNoise(key, key, row, stratum).for_draw(n, num_draws),
            schedule,
        )
        for n in range(num_draws)
    ]
    prior = np.mean([draw["prior"] for draw in draws], axis=0)
    for split in (nats.by_logsnr, nats.by_channel, nats.by_position):
        total = np.asarray(split).reshape(ROWS, -1).sum(1)
        np.testing.assert_allclose(total, prior, rtol=1e-4)
    np.testing.assert_allclose(nats.terminal, draws[0]["terminal"], rtol=1e-4)


def average_split(batch, num_draws):
    """Return the split rate of a batch in bits per pixel."""
    nats = jax.device_get(
        rate_split.split_rate_nats(
            NETWORKS, PRIOR, {}, *batch, jax.random.key(0), num_draws=num_draws
        )
    )
    return rate_split.average_rate_split(nats, PRIOR, num_pixels=8)


def test_the_split_by_position_and_by_logsnr_has_its_closed_form(batch):
    """A pixel costs 1/2 log(1 + g^2 s^2 e^5), a log-SNR l costs 1/2 v e^l / (1 + v e^l)."""
    rate = average_split(batch, num_draws=16)
    gain = (G * STD) ** 2
    expected = 0.5 * np.log2((1 + gain * np.exp(5.0)) / (1 + gain * np.exp(-10.0)))
    np.testing.assert_allclose(
        rate.bpp_by_position.mean(0), expected[..., 0], rtol=0.03
    )
    snr = gain[None] * np.exp(rate.logsnr)[:, None, None, None]
    expected = (0.5 * snr / (1 + snr)).sum((1, 2, 3)) / 8 / np.log(2)
    error = np.abs(rate.bpp_by_logsnr - expected)
    assert np.all(error < 4 * rate.bpp_by_logsnr_sem + 0.01 * expected)
    bin_width = 15.0 / rate_split.NUM_LOGSNR_BINS
    np.testing.assert_allclose(
        rate.bpp_by_logsnr.sum() * bin_width, rate.bpp_by_channel.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
        rate.bpp_by_position.mean(), rate.bpp_by_channel.sum(), rtol=1e-5
    )


def test_maps_are_upsampled_over_their_pixels():
    by_position = np.arange(4.0).reshape(1, 2, 2)
    upsampled = rate_split.upsample_to_image(by_position, (4, 6))
    assert upsampled.shape == (1, 4, 6)
    np.testing.assert_array_equal(upsampled[0, :2, :3], 0.0)
    np.testing.assert_array_equal(upsampled[0, 2:, 3:], 3.0)


def test_plots_are_png(batch):
    image = np.asarray(batch[0][:6])
    rate = average_split([values[:6] for values in batch], num_draws=1)
    for png in (bit_plots.curves(rate), bit_plots.maps(image, rate.bpp_by_position)):
        assert png.startswith(b"\x89PNG")


BREAKS = (
    Break(
        "a likelihood bound without its discrete term",
        "ul/metrics/likelihood.py",
        "rate + decoder + discretized_nats(image, x_0, decoder_schedule.logsnr_max)",
        "rate + decoder",
        "test_the_bound_is_the_entropy_of_the_levels",
    ),
)
