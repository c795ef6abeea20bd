"""Stage 2: the base model's loss, condition dropout and noise per row."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.lib.breaks import Break
from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Linear
from ul.objectives import conditions
from ul.objectives.base import base_model_loss
from ul.objectives.noise import BatchNoise

NUM_ROWS = 1 << 14
SCHEDULE = Linear(5.0, -10.0)


def batch():
    z = jnp.broadcast_to(jnp.asarray([0.5, -1.0, 2.0]), (NUM_ROWS, 3))
    return {
        "z_clean": z,
        "label": jnp.full(NUM_ROWS, 3),
        "row": jnp.arange(NUM_ROWS),
        "stratum": jnp.arange(NUM_ROWS) / NUM_ROWS,
    }


def run(inputs=None, label_dropout=0.0):
    """Return the terms with a zero denoiser; its arguments are stored in `inputs`."""

    def denoise(params, z_t, logsnr, condition, key):
        if inputs is not None:
            inputs.update(z_t=z_t, logsnr=logsnr, **condition)
        return jnp.zeros_like(z_t)

    return base_model_loss(
        {},
        batch(),
        jax.random.key(0),
        0,
        denoise_latent=denoise,
        schedule=SCHEDULE,
        weight=weightings.Sigmoid(0.5),
        label_dropout=label_dropout,
        null={"label": 10},
    )


def test_the_weighted_loss_of_the_zero_denoiser():
    span = np.log1p(np.exp(4.5)) - np.log1p(np.exp(-10.5))
    expected = np.exp(0.5) / 2 * span * (0.25 + 1 + 4)
    np.testing.assert_allclose(jnp.mean(run().loss), expected, rtol=1e-3)


def test_z_clean_gets_no_noise_beyond_the_schedule():
    """At any level, z_t - alpha z_clean is sigma times standard noise."""
    inputs = {}
    run(inputs)
    a, s = (
        gaussian.expand(f(inputs["logsnr"]), inputs["z_t"])
        for f in (gaussian.alpha, gaussian.sigma)
    )
    eps = (inputs["z_t"] - a * batch()["z_clean"]) / s
    sem = 1 / np.sqrt(eps.size)
    assert abs(float(eps.mean())) < 4 * sem
    assert abs(float(eps.std()) - 1) < 4 * sem
    assert float(inputs["logsnr"].max()) <= 5.0


def test_labels_are_dropped_at_the_requested_rate():
    inputs = {}
    run(inputs, label_dropout=0.1)
    rate = float(jnp.mean(inputs["label"] == 10))
    assert abs(rate - 0.1) < 4 * np.sqrt(0.09 / NUM_ROWS)
    assert set(np.unique(inputs["label"])) == {3, 10}


def test_dropout_of_conditions_depends_on_the_row_alone():
    key, label = jax.random.key(1), jnp.arange(50)
    text, null = jnp.ones((50, 2, 3)), {"label": 99, "text": 0.0}

    def drop(row):
        noise = BatchNoise(key, key, row, row / 50)
        condition = {"label": label[row], "text": text[row]}
        return conditions.drop(condition, noise, rate=0.5, null=null)

    full = drop(jnp.arange(50))
    part = drop(jnp.arange(20, 50))
    np.testing.assert_array_equal(part["label"], full["label"][20:])
    # Either all entries of an example are dropped or none.
    is_dropped = full["label"] == 99
    assert 0 < is_dropped.sum() < 50
    np.testing.assert_array_equal(full["text"][:, 0, 0] == 0.0, is_dropped)


def test_several_draws_of_a_row_are_evenly_spaced_in_time():
    key = jax.random.key(2)
    row = jnp.arange(5)
    noise = BatchNoise(key, key, row, row / 5)
    times = np.stack([noise.for_draw(n, 8).time("t") for n in range(8)])
    np.testing.assert_allclose(
        np.diff(np.sort(times, axis=0), axis=0), 1 / 8, atol=1e-5
    )
    np.testing.assert_allclose(np.diff(np.sort(times.ravel())), 1 / 40, atol=1e-5)
    eps = [noise.for_draw(n, 8).normal("eps", jnp.zeros((5, 3))) for n in range(2)]
    assert not np.array_equal(*eps)


BREAKS = (
    Break(
        "latents that stage 2 rescales",
        "ul/objectives/base.py",
        't, eps = noise.time("time"),',
        'z_clean = 1.1 * z_clean\n    t, eps = noise.time("time"),',
        "test_z_clean_gets_no_noise_beyond_the_schedule",
    ),
    Break(
        "all draws of a row at one time",
        "ul/objectives/noise.py",
        "(self.stratum + number) / num_draws",
        "self.stratum / num_draws",
        "test_several_draws_of_a_row_are_evenly_spaced_in_time",
    ),
)
