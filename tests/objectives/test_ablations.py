"""What UL is compared with, on Gaussian data with linear networks: values in closed form.

x ~ N(0, s^2) in every element, the encoder's mean is g x, every denoiser is exact.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Linear
from ul.objectives import ablations
from ul.objectives.joint import Networks, joint
from ul.objectives.single_stage import Fixed, TruncatedLogistic, single

ROWS, SHAPE, S, G = 1 << 16, (2, 2, 1), 0.4, 1.5
D, END = int(np.prod(SHAPE)), 5.0
PRIOR, DECODER = Linear(END, -10.0), Linear(12.0, -12.0)
WEIGHT = weightings.Sigmoid(1.0, 1.7)
WEIGHTED = dict(decoder_schedule=DECODER, decoder_weight=WEIGHT)


def exact(variance):
    """E[z | z_t] for z ~ N(0, variance)."""

    def denoise(params, z_t, logsnr, *rest):
        a, s = (
            gaussian.expand(f(logsnr), z_t) for f in (gaussian.alpha, gaussian.sigma)
        )
        return a * variance / (a**2 * variance + s**2) * z_t

    return denoise


def encode(params, x):
    return params["g"] * x


def encode_normal(log_variance):
    return lambda params, x: (params["g"] * x, jnp.full_like(x, log_variance))


def denoise_image(params, x_t, logsnr, z_0, *rest):
    return 0.9 / G * z_0


NETWORKS = Networks(encode, exact(G**2 * S**2), denoise_image)
PARAMS = {"g": jnp.asarray(G)}


@pytest.fixture(scope="module")
def batch():
    x = S * jax.random.normal(jax.random.key(7), (ROWS, *SHAPE))
    return {
        "image": (x + 1.0) * 127.5,
        "label": jnp.full(ROWS, 3, jnp.int32),
        "row": jnp.arange(ROWS),
        "stratum": jnp.arange(ROWS) / ROWS,
    }


def run(objective, batch, **how):
    made = functools.partial(objective, **how)
    return made(PARAMS, batch, jax.random.key(0), 0)


def within_four_sem(values, want):
    values = np.asarray(values, np.float64)
    sem = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - want) < 4 * sem, (values.mean(), want, sem)
    assert 4 * sem < 0.1 * abs(want)


def plain(batch):
    how = dict(networks=NETWORKS, prior_schedule=PRIOR, ramp_steps=0)
    return run(joint, batch, **how, **WEIGHTED)


def test_the_normal_priors_rate_is_one_kl_and_its_decoder_is_uls(batch):
    found = run(
        ablations.normal_prior,
        batch,
        encode=encode,
        denoise_image=denoise_image,
        latent_logsnr=END,
        ramp_steps=0,
        **WEIGHTED,
    )
    variance = float(jax.nn.sigmoid(END)) * G**2 * S**2
    sigma2 = float(jax.nn.sigmoid(-END))
    within_four_sem(
        found.nats["rate"], D * (variance + sigma2 - np.log(sigma2) - 1) / 2
    )
    np.testing.assert_array_equal(found.nats["decoder"], plain(batch).nats["decoder"])
    np.testing.assert_allclose(found.loss, found.nats["rate"] + found.nats["decoder"])


def test_the_mse_decoder_is_a_gaussian_of_its_precision(batch):
    precision = 30.0
    found = run(
        ablations.mse_decoder,
        batch,
        encode=encode,
        denoise_latent=NETWORKS.denoise_latent,
        decode=lambda params, z_0, key: z_0 / G,
        prior_schedule=PRIOR,
        precision=precision,
        ramp_steps=0,
    )
    a, sigma2 = float(gaussian.alpha(END)), float(jax.nn.sigmoid(-END))
    error = (1 - a) ** 2 * S**2 + sigma2 / G**2
    within_four_sem(found.nats["decoder"], precision / 2 * D * error)
    np.testing.assert_array_equal(found.nats["rate"], plain(batch).nats["rate"])


@pytest.mark.parametrize("log_variance", [-8.0, -5.0, -2.0])
def test_a_learned_variance_costs_what_z_0_still_knows_of_x(batch, log_variance):
    """With the exact prior the rate is the information of two Gaussians:
    1/2 log((a^2 (g^2 s^2 + v) + sigma^2) / (a^2 v + sigma^2)) an element."""
    v = np.exp(log_variance)
    networks = Networks(encode, exact(G**2 * S**2 + v), denoise_image)
    found = run(
        ablations.learned_variance,
        batch,
        encode=encode_normal(log_variance),
        networks=networks,
        prior_schedule=PRIOR,
        ramp_steps=0,
        **WEIGHTED,
    )
    noise = v + np.exp(-END)  # over a^2
    within_four_sem(found.nats["rate"], D * np.log((G**2 * S**2 + noise) / noise) / 2)
    np.testing.assert_allclose(
        found.loss, found.nats["rate"] + found.nats["decoder"], rtol=1e-6
    )


def test_the_detached_prior_does_not_reach_the_encoder(batch):
    def loss(g, kl_weight):
        return jnp.mean(
            ablations.detached_prior(
                {"g": g},
                batch,
                jax.random.key(0),
                0,
                networks=Networks(
                    encode, NETWORKS.denoise_latent, lambda p, x_t, *_: 0 * x_t
                ),
                prior_schedule=PRIOR,
                kl_weight=kl_weight,
                **WEIGHTED,
            ).loss
        )

    square = float(jnp.mean(jnp.sum(arrays.to_unit(batch["image"]) ** 2, (1, 2, 3))))
    # The decoder sees nothing, so only the KL is left: alpha^2 g |x|^2.
    want = 0.2 * float(jax.nn.sigmoid(END)) * G * square
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(G), 0.2), want, rtol=1e-4)
    found = run(
        ablations.detached_prior,
        batch,
        networks=NETWORKS,
        prior_schedule=PRIOR,
        kl_weight=0.2,
        **WEIGHTED,
    )
    nats = found.nats
    np.testing.assert_array_equal(nats["rate"], plain(batch).nats["rate"])
    np.testing.assert_allclose(
        found.loss, nats["rate"] + nats["decoder"] + 0.2 * nats["kl"], rtol=1e-6
    )


def test_the_kl_autoencoders_terms(batch):
    log_variance, precision = -3.0, 30.0
    found = run(
        ablations.kl_autoencoder,
        batch,
        encode=encode_normal(log_variance),
        decode=lambda params, z, key: z / G,
        precision=precision,
        kl_weight=0.1,
    )
    v = np.exp(log_variance)
    within_four_sem(found.nats["rate"], D * (G**2 * S**2 + v - log_variance - 1) / 2)
    within_four_sem(found.nats["decoder"], precision / 2 * D * v / G**2)
    np.testing.assert_allclose(
        found.loss, 0.1 * found.nats["rate"] + found.nats["decoder"], rtol=1e-6
    )


def alone(batch, least, seen=None):
    def told(params, x_t, logsnr, z_0, logsnr_0, key):
        if seen is not None:
            seen.update(z_0=z_0, logsnr_0=logsnr_0)
        return denoise_image(params, x_t, logsnr, z_0)

    return run(
        single,
        batch,
        encode=encode,
        denoise_latent=NETWORKS.denoise_latent,
        denoise_image=told,
        least=least,
        prior_schedule=PRIOR,
        label_dropout=0.1,
        null={"label": 10},
        ramp_steps=0,
        **WEIGHTED,
    )


def test_a_single_stage_of_fixed_noise_is_uls_stage_1(batch):
    found, want = alone(batch, Fixed()), plain(batch)
    for name in ("prior", "terminal", "decoder"):
        np.testing.assert_allclose(found.nats[name], want.nats[name], rtol=1e-4)


def test_random_noise_weights_the_elbo_by_the_chance_to_lie_above(batch):
    """E over the least noise: Int P(least > l) / 2 e^l v / (1 + v e^l) dl, v = g^2 s^2."""
    bias, v = 1.0, G**2 * S**2
    law = stats.logistic(bias)

    def integrand(logsnr):
        above = (law.cdf(END) - law.cdf(logsnr)) / law.cdf(END)
        return above * np.exp(logsnr) * v / (1 + v * np.exp(logsnr)) / 2

    want = D * integrate.quad(integrand, -10, END)[0]
    within_four_sem(alone(batch, TruncatedLogistic(bias)).nats["prior"], want)


def test_the_decoder_is_told_each_examples_own_noise(batch):
    seen = {}
    alone(batch, TruncatedLogistic(1.0), seen)
    logsnr, x = seen["logsnr_0"], arrays.to_unit(batch["image"])
    ends = stats.kstest(
        np.asarray(logsnr),
        lambda v: stats.logistic(1.0).cdf(v) / stats.logistic(1.0).cdf(END),
    )
    assert ends.pvalue > 1e-4 and float(logsnr.max()) <= END
    left = (seen["z_0"] - gaussian.expand(gaussian.alpha(logsnr), x) * G * x) / (
        gaussian.expand(gaussian.sigma(logsnr), x)
    )
    assert abs(float(left.std()) - 1) < 4 / np.sqrt(2 * left.size)
