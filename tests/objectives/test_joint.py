"""Stage 1 with linear networks: losses and encoder gradients in closed form.

The encoder returns g x, the prior predicts 0 and the decoder a z_0. Then, per example,
  L_z = 1/2 (e^5 - e^-10) g^2 |x|^2 + KL(q(z_1|x) || N(0, I))
  E L_x = K ((1 - a g alpha_0)^2 |x|^2 + a^2 sigma_0^2 d)
  K = c e^b / 2 (softplus(max - b) - softplus(min - b)).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core import arrays
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Linear
from ul.objectives.joint import JointNetworks, joint_loss

NUM_ROWS, SHAPE = 1 << 15, (2, 2, 1)
G, A, FACTOR, BIAS = 0.3, 1.4, 1.7, 0.5
D = int(np.prod(SHAPE))
ALPHA_0, SIGMA_0 = float(gaussian.alpha(5.0)), float(gaussian.sigma(5.0))
K = (
    FACTOR
    * np.exp(BIAS)
    / 2
    * (np.log1p(np.exp(12 - BIAS)) - np.log1p(np.exp(-12 - BIAS)))
)
PRIOR = (np.exp(5.0) - np.exp(-10.0)) / 2


def linear_networks(inputs=None):
    """Return the networks; their arguments are stored in `inputs`."""

    def record(name, *values):
        if inputs is not None:
            inputs[name] = values

    def denoise_latent(params, z_t, logsnr, key):
        record("prior", z_t, logsnr)
        return jnp.zeros_like(z_t)

    def denoise_image(params, x_t, logsnr, z_0, key):
        record("decoder", x_t, logsnr, z_0)
        return A * z_0

    return JointNetworks(
        lambda params, x: params["g"] * x, denoise_latent, denoise_image
    )


@pytest.fixture(scope="module")
def batch():
    image = np.tile(
        np.asarray([10, 90, 200, 255], np.uint8).reshape(1, *SHAPE), (NUM_ROWS, 1, 1, 1)
    )
    return {
        "image": jnp.asarray(image),
        "label": jnp.zeros(NUM_ROWS, jnp.int32),
        "row": jnp.arange(NUM_ROWS),
        "stratum": jnp.arange(NUM_ROWS) / NUM_ROWS,
    }


def run(batch, g=G, ramp_steps=0, step=0, inputs=None):
    return joint_loss(
        {"g": jnp.asarray(g)},
        batch,
        jax.random.key(0),
        step,
        networks=linear_networks(inputs),
        prior_schedule=Linear(5.0, -10.0),
        decoder_schedule=Linear(12.0, -12.0),
        decoder_weight=weightings.Sigmoid(BIAS, FACTOR),
        ramp_steps=ramp_steps,
    )


@pytest.fixture(scope="module")
def energy(batch):
    return float(jnp.sum(arrays.scale_pixels(batch["image"][:1]) ** 2))


def test_the_prior_terms_equal_their_closed_forms(batch, energy):
    nats = run(batch).nats
    np.testing.assert_allclose(
        jnp.mean(nats["prior"]), PRIOR * G**2 * energy, rtol=5e-3
    )
    np.testing.assert_allclose(
        nats["terminal"],
        gaussian.kl_standard_normal(G * arrays.scale_pixels(batch["image"]), -10.0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        nats["rate"], nats["prior"] + nats["terminal"], rtol=1e-6
    )


def test_the_decoder_term_equals_its_closed_form(batch, energy):
    decoder = np.asarray(run(batch).nats["decoder"], np.float64)
    expected = K * ((1 - A * G * ALPHA_0) ** 2 * energy + A**2 * SIGMA_0**2 * D)
    assert abs(decoder.mean() - expected) < 4 * decoder.std() / np.sqrt(NUM_ROWS)
    np.testing.assert_allclose(decoder.mean(), expected, rtol=2e-2)


def test_the_loss_is_the_sum_of_rate_and_decoder(batch):
    terms = run(batch)
    np.testing.assert_allclose(
        terms.loss, terms.nats["rate"] + terms.nats["decoder"], rtol=1e-6
    )


def gradient(batch, **kwargs):
    """Return the derivative of the mean loss with respect to the encoder's gain."""
    return float(jax.grad(lambda g: jnp.mean(run(batch, g, **kwargs).loss))(G))


def expected_gradient(energy, ramp):
    """Return d/dg of the closed forms; the ramp scales the prior's part alone."""
    prior = 2 * PRIOR * G * energy + float(jax.nn.sigmoid(-10.0)) * G * energy
    decoder = -2 * K * A * ALPHA_0 * (1 - A * G * ALPHA_0) * energy
    return ramp * prior + decoder


def test_both_losses_reach_the_encoder(batch, energy):
    """A stop-gradient on z_clean or z_0 would remove one part."""
    np.testing.assert_allclose(
        gradient(batch), expected_gradient(energy, 1.0), rtol=5e-3
    )


def test_the_ramp_scales_the_prior_gradient_that_reaches_the_encoder(batch, energy):
    np.testing.assert_allclose(
        gradient(batch, ramp_steps=4, step=0),
        expected_gradient(energy, 0.25),
        rtol=1e-2,
    )
    assert gradient(batch, ramp_steps=4, step=9) == gradient(batch)


def test_the_ramp_changes_no_value(batch):
    np.testing.assert_array_equal(
        run(batch, ramp_steps=100, step=0).loss, run(batch).loss
    )


def test_the_decoder_gets_z_at_logsnr_5_and_all_noises_are_independent(batch):
    inputs = {}
    run(batch, inputs=inputs)
    x = arrays.scale_pixels(batch["image"])
    (z_t, logsnr_z), (x_t, logsnr_x, z_0) = inputs["prior"], inputs["decoder"]
    noise = {
        "encoder": (z_0 - ALPHA_0 * G * x) / SIGMA_0,
        "prior": (z_t - gaussian.expand(gaussian.alpha(logsnr_z), x) * G * x)
        / gaussian.expand(gaussian.sigma(logsnr_z), x),
        "decoder": (x_t - gaussian.expand(gaussian.alpha(logsnr_x), x) * x)
        / gaussian.expand(gaussian.sigma(logsnr_x), x),
    }
    sem = 1 / np.sqrt(x.size)
    for name, eps in noise.items():
        assert abs(float(eps.mean())) < 4 * sem, name
        assert abs(float(eps.std()) - 1) < 4 * sem, name
        for other, other_eps in noise.items():
            if other != name:
                assert abs(float(jnp.mean(eps * other_eps))) < 4 * sem, (name, other)
    t_z, t_x = (5 - logsnr_z) / 15, (12 - logsnr_x) / 24
    assert float(jnp.min(jnp.abs(t_z - t_x))) > 1e-4, (
        "prior and decoder use the same time"
    )


def test_twice_the_pixels_cost_twice_the_nats(batch):
    """A mean in one term would change the balance of the terms with the image size."""
    double = batch | {"image": jnp.concatenate([batch["image"]] * 2, axis=1)}
    once, twice = run(batch).nats, run(double).nats
    for name in ("prior", "terminal"):
        np.testing.assert_allclose(
            jnp.mean(twice[name]), 2 * jnp.mean(once[name]), rtol=1e-4
        )
    np.testing.assert_allclose(
        jnp.mean(twice["decoder"]), 2 * jnp.mean(once["decoder"]), rtol=2e-2
    )


BREAKS = (
    Break(
        "a stop-gradient before the prior",
        "ul/objectives/joint.py",
        "z_prior = trees.scale_gradient(z_clean, ramp)",
        "z_prior = trees.scale_gradient(z_clean, 0.0)",
        "test_both_losses_reach_the_encoder",
    ),
    Break(
        "a stop-gradient before the decoder",
        "ul/objectives/joint.py",
        "z_0 = add_encoder_noise(z_clean,",
        "z_0 = add_encoder_noise(trees.scale_gradient(z_clean, 0.0),",
        "test_both_losses_reach_the_encoder",
    ),
    Break(
        "encoder noise that is not tied to the prior's maximum log-SNR",
        "ul/objectives/joint.py",
        "noise, prior_schedule.logsnr_max)",
        "noise, 10.0)",
        "test_the_decoder_gets_z_at_logsnr_5_and_all_noises_are_independent",
    ),
    Break(
        "one noise for prior and encoder",
        "ul/objectives/joint.py",
        'noise.normal("prior_noise"',
        'noise.normal("encoder_noise"',
        "test_the_decoder_gets_z_at_logsnr_5_and_all_noises_are_independent",
    ),
    Break(
        "a ramp that changes the loss",
        "ul/objectives/joint.py",
        "trees.scale_gradient(z_clean, ramp)",
        "z_clean * ramp",
        "test_the_ramp_changes_no_value",
    ),
)
