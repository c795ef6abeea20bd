import jax
import jax.numpy as jnp
import numpy as np

from ul.diffusion import gaussian, weightings
from ul.diffusion.schedules import Linear
from ul.objectives import conditions
from ul.objectives.base import base
from ul.objectives.noise import Draws

ROWS = 1 << 14
SCHEDULE = Linear(5.0, -10.0)


def batch():
    z = jnp.broadcast_to(jnp.asarray([0.5, -1.0, 2.0]), (ROWS, 3))
    return {
        "z_clean": z,
        "label": jnp.full(ROWS, 3),
        "row": jnp.arange(ROWS),
        "stratum": jnp.arange(ROWS) / ROWS,
    }


def run(seen=None, label_dropout=0.0):
    def denoise(params, z_t, logsnr, condition, key):
        if seen is not None:
            seen.update(z_t=z_t, logsnr=logsnr, **condition)
        return jnp.zeros_like(z_t)

    return base(
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
    want = np.exp(0.5) / 2 * span * (0.25 + 1 + 4)
    np.testing.assert_allclose(jnp.mean(run().loss), want, rtol=1e-3)


def test_noise_is_the_schedules_alone():
    """At any level z_t - alpha z_clean is sigma times standard noise: nothing was added."""
    seen = {}
    run(seen)
    a, s = (
        gaussian.expand(f(seen["logsnr"]), seen["z_t"])
        for f in (gaussian.alpha, gaussian.sigma)
    )
    eps = (seen["z_t"] - a * batch()["z_clean"]) / s
    sem = 1 / np.sqrt(eps.size)
    assert abs(float(eps.mean())) < 4 * sem
    assert abs(float(eps.std()) - 1) < 4 * sem
    assert float(seen["logsnr"].max()) <= 5.0


def test_labels_are_dropped_at_the_rate_asked_for():
    seen = {}
    run(seen, label_dropout=0.1)
    share = float(jnp.mean(seen["label"] == 10))
    assert abs(share - 0.1) < 4 * np.sqrt(0.09 / ROWS)
    assert set(np.unique(seen["label"])) == {3, 10}


def test_dropout_of_conditions_depends_on_the_row_alone():
    key, label = jax.random.key(1), jnp.arange(50)
    text, null = jnp.ones((50, 2, 3)), {"label": 99, "text": 0.0}

    def dropped(rows):
        draws, given = Draws(key, key, rows, rows / 50), {"label": label, "text": text}
        given = {name: value[rows] for name, value in given.items()}
        return conditions.dropped(given, draws, rate=0.5, null=null)

    whole = dropped(jnp.arange(50))
    part = dropped(jnp.arange(20, 50))
    np.testing.assert_array_equal(part["label"], whole["label"][20:])
    gone = whole["label"] == 99  # all entries of an example go, or none
    assert 0 < gone.sum() < 50
    np.testing.assert_array_equal(whole["text"][:, 0, 0] == 0.0, gone)


def test_repeated_draws_of_a_row_are_evenly_spaced_in_time():
    key = jax.random.key(2)
    rows = jnp.arange(5)
    one = Draws(key, key, rows, rows / 5)
    t = np.stack([one.repeated(n, 8).time("t") for n in range(8)])
    np.testing.assert_allclose(np.diff(np.sort(t, axis=0), axis=0), 1 / 8, atol=1e-5)
    together = np.sort(t.ravel())
    np.testing.assert_allclose(np.diff(together), 1 / 40, atol=1e-5)
    noise = [one.repeated(n, 8).noise("eps", jnp.zeros((5, 3))) for n in range(2)]
    assert not np.array_equal(*noise)
