"""The alternatives to UL, on Gaussian data with linear networks, in closed form.

Every element is x ~ N(0, s^2), the encoder's mean is g x and the priors are exact.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tests.lib.breaks import Break
from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Linear
from ul.objectives import ablations
from ul.objectives.joint import JointNetworks, joint_loss
from ul.objectives.single_stage import (
    FixedMaxLogsnr,
    TruncatedLogisticMaxLogsnr,
    single_stage_loss,
)

NUM_ROWS, SHAPE, S, G = 1 << 16, (2, 2, 1), 0.4, 1.5
D, LOGSNR_0 = int(np.prod(SHAPE)), 5.0
PRIOR, DECODER = Linear(LOGSNR_0, -10.0), Linear(12.0, -12.0)
WEIGHT = weightings.Sigmoid(1.0, 1.7)
DECODER_LOSS = dict(decoder_schedule=DECODER, decoder_weight=WEIGHT)


def exact_denoiser(variance):
    """Return E[z | z_t] for z ~ N(0, variance)."""

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


NETWORKS = JointNetworks(encode, exact_denoiser(G**2 * S**2), denoise_image)
PARAMS = {"g": jnp.asarray(G)}


@pytest.fixture(scope="module")
def batch():
    x = S * jax.random.normal(jax.random.key(7), (NUM_ROWS, *SHAPE))
    return {
        "image": (x + 1.0) * 127.5,
        "label": jnp.full(NUM_ROWS, 3, jnp.int32),
        "row": jnp.arange(NUM_ROWS),
        "stratum": jnp.arange(NUM_ROWS) / NUM_ROWS,
    }


def run(objective, batch, **kwargs):
    return objective(PARAMS, batch, jax.random.key(0), 0, **kwargs)


def assert_mean_within_four_sem(values, expected):
    values = np.asarray(values, np.float64)
    sem = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * sem, (values.mean(), expected, sem)
    assert 4 * sem < 0.1 * abs(expected)


def run_joint(batch):
    """Return the terms of UL itself."""
    kwargs = dict(networks=NETWORKS, prior_schedule=PRIOR, ramp_steps=0)
    return run(joint_loss, batch, **kwargs, **DECODER_LOSS)


def test_the_normal_prior_has_a_kl_as_rate_and_the_decoder_loss_of_ul(batch):
    terms = run(
        ablations.normal_prior_loss,
        batch,
        encode=encode,
        denoise_image=denoise_image,
        latent_logsnr=LOGSNR_0,
        ramp_steps=0,
        **DECODER_LOSS,
    )
    variance = float(jax.nn.sigmoid(LOGSNR_0)) * G**2 * S**2
    sigma2 = float(jax.nn.sigmoid(-LOGSNR_0))
    assert_mean_within_four_sem(
        terms.nats["rate"], D * (variance + sigma2 - np.log(sigma2) - 1) / 2
    )
    np.testing.assert_array_equal(
        terms.nats["decoder"], run_joint(batch).nats["decoder"]
    )
    np.testing.assert_allclose(terms.loss, terms.nats["rate"] + terms.nats["decoder"])


def test_the_mse_decoder_has_the_nats_of_a_gaussian_of_its_precision(batch):
    precision = 30.0
    terms = run(
        ablations.mse_decoder_loss,
        batch,
        encode=encode,
        denoise_latent=NETWORKS.denoise_latent,
        decode=lambda params, z_0, key: z_0 / G,
        prior_schedule=PRIOR,
        precision=precision,
        ramp_steps=0,
    )
    a, sigma2 = float(gaussian.alpha(LOGSNR_0)), float(jax.nn.sigmoid(-LOGSNR_0))
    error = (1 - a) ** 2 * S**2 + sigma2 / G**2
    assert_mean_within_four_sem(terms.nats["decoder"], precision / 2 * D * error)
    np.testing.assert_array_equal(terms.nats["rate"], run_joint(batch).nats["rate"])


@pytest.mark.parametrize("log_variance", [-8.0, -5.0, -2.0])
def test_the_rate_of_a_learned_variance_is_the_information_in_z_0(batch, log_variance):
    """With the exact prior it is the mutual information of two Gaussians.

    1/2 log((a^2 (g^2 s^2 + v) + sigma^2) / (a^2 v + sigma^2)) per element.
    """
    v = np.exp(log_variance)
    networks = JointNetworks(encode, exact_denoiser(G**2 * S**2 + v), denoise_image)
    terms = run(
        ablations.learned_variance_loss,
        batch,
        encode=encode_normal(log_variance),
        networks=networks,
        prior_schedule=PRIOR,
        ramp_steps=0,
        **DECODER_LOSS,
    )
    noise = v + np.exp(-LOGSNR_0)  # divided by a^2
    assert_mean_within_four_sem(
        terms.nats["rate"], D * np.log((G**2 * S**2 + noise) / noise) / 2
    )
    np.testing.assert_allclose(
        terms.loss, terms.nats["rate"] + terms.nats["decoder"], rtol=1e-6
    )


def test_the_loss_of_the_detached_prior_does_not_reach_the_encoder(batch):
    def loss(g, kl_weight):
        return jnp.mean(
            ablations.detached_prior_loss(
                {"g": g},
                batch,
                jax.random.key(0),
                0,
                networks=JointNetworks(
                    encode, NETWORKS.denoise_latent, lambda p, x_t, *_: 0 * x_t
                ),
                prior_schedule=PRIOR,
                kl_weight=kl_weight,
                **DECODER_LOSS,
            ).loss
        )

    square = float(
        jnp.mean(jnp.sum(arrays.scale_pixels(batch["image"]) ** 2, (1, 2, 3)))
    )
    # The decoder ignores the latent, so only the KL has a gradient: alpha^2 g |x|^2.
    expected = 0.2 * float(jax.nn.sigmoid(LOGSNR_0)) * G * square
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(G), 0.2), expected, rtol=1e-4)
    terms = run(
        ablations.detached_prior_loss,
        batch,
        networks=NETWORKS,
        prior_schedule=PRIOR,
        kl_weight=0.2,
        **DECODER_LOSS,
    )
    nats = terms.nats
    np.testing.assert_array_equal(nats["rate"], run_joint(batch).nats["rate"])
    np.testing.assert_allclose(
        terms.loss, nats["rate"] + nats["decoder"] + 0.2 * nats["kl"], rtol=1e-6
    )


def test_the_terms_of_the_kl_autoencoder_equal_their_closed_forms(batch):
    log_variance, precision = -3.0, 30.0
    terms = run(
        ablations.kl_autoencoder_loss,
        batch,
        encode=encode_normal(log_variance),
        decode=lambda params, z, key: z / G,
        precision=precision,
        kl_weight=0.1,
    )
    v = np.exp(log_variance)
    assert_mean_within_four_sem(
        terms.nats["rate"], D * (G**2 * S**2 + v - log_variance - 1) / 2
    )
    assert_mean_within_four_sem(terms.nats["decoder"], precision / 2 * D * v / G**2)
    np.testing.assert_allclose(
        terms.loss, 0.1 * terms.nats["rate"] + terms.nats["decoder"], rtol=1e-6
    )


def run_single_stage(batch, max_logsnr, inputs=None):
    """Return the terms; the decoder's arguments are stored in `inputs`."""

    def denoise_with_level(params, x_t, logsnr, z_0, logsnr_0, key):
        if inputs is not None:
            inputs.update(z_0=z_0, logsnr_0=logsnr_0)
        return denoise_image(params, x_t, logsnr, z_0)

    return run(
        single_stage_loss,
        batch,
        encode=encode,
        denoise_latent=NETWORKS.denoise_latent,
        denoise_image=denoise_with_level,
        max_logsnr=max_logsnr,
        prior_schedule=PRIOR,
        label_dropout=0.1,
        null={"label": 10},
        ramp_steps=0,
        **DECODER_LOSS,
    )


def test_a_single_stage_of_fixed_maximum_logsnr_has_the_terms_of_ul(batch):
    terms, expected = run_single_stage(batch, FixedMaxLogsnr()), run_joint(batch)
    for name in ("prior", "terminal", "decoder"):
        np.testing.assert_allclose(terms.nats[name], expected.nats[name], rtol=1e-4)


def test_a_random_maximum_logsnr_weights_the_elbo_by_its_survival_function(batch):
    """E L = Int P(logsnr_0 > l) / 2 e^l v / (1 + v e^l) dl with v = g^2 s^2."""
    bias, v = 1.0, G**2 * S**2
    logistic = stats.logistic(bias)

    def integrand(logsnr):
        at_max = logistic.cdf(LOGSNR_0)
        survival = (at_max - logistic.cdf(logsnr)) / at_max
        return survival * np.exp(logsnr) * v / (1 + v * np.exp(logsnr)) / 2

    expected = D * integrate.quad(integrand, -10, LOGSNR_0)[0]
    terms = run_single_stage(batch, TruncatedLogisticMaxLogsnr(bias))
    assert_mean_within_four_sem(terms.nats["prior"], expected)


def test_the_decoder_is_conditioned_on_each_examples_own_noise_level(batch):
    inputs = {}
    run_single_stage(batch, TruncatedLogisticMaxLogsnr(1.0), inputs)
    logsnr, x = inputs["logsnr_0"], arrays.scale_pixels(batch["image"])
    test = stats.kstest(
        np.asarray(logsnr),
        lambda v: stats.logistic(1.0).cdf(v) / stats.logistic(1.0).cdf(LOGSNR_0),
    )
    assert test.pvalue > 1e-4 and float(logsnr.max()) <= LOGSNR_0
    eps = (inputs["z_0"] - gaussian.expand(gaussian.alpha(logsnr), x) * G * x) / (
        gaussian.expand(gaussian.sigma(logsnr), x)
    )
    assert abs(float(eps.std()) - 1) < 4 / np.sqrt(2 * eps.size)


BREAKS = (
    Break(
        "the entropy of the encoder added instead of subtracted",
        "ul/objectives/ablations.py",
        "entropy = -gaussian.sum_elements",
        "entropy = gaussian.sum_elements",
        "test_the_rate_of_a_learned_variance_is_the_information_in_z_0",
    ),
    Break(
        "a detached prior that reaches the encoder",
        "ul/objectives/ablations.py",
        "jax.lax.stop_gradient(z_clean)",
        "z_clean",
        "test_the_loss_of_the_detached_prior_does_not_reach_the_encoder",
    ),
    Break(
        "a decoder conditioned on the maximum log-SNR of all examples",
        "ul/objectives/single_stage.py",
        "z_0 = add_encoder_noise(z_clean, noise, logsnr_0)",
        "z_0 = add_encoder_noise(z_clean, noise, prior_schedule.logsnr_max)",
        "test_the_decoder_is_conditioned_on_each_examples_own_noise_level",
    ),
)
