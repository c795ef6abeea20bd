"""Consistency distillation on Gaussian data, where teacher and student are known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lib.breaks import Break
from tests.lib.gaussian_decoder import (
    VARIANCE,
    Student,
    make_batch,
    sample,
    std_of_x_t,
    teach,
)
from ul.diffusion import gaussian
from ul.objectives import consistency
from ul.objectives.consistency import Consistency


def exact(settings, x_t, logsnr):
    """Return what an ideal student predicts."""
    width = (settings.logsnr_max - settings.logsnr_min) / settings.num_calls
    segment = jnp.floor((logsnr - settings.logsnr_min + 1e-4) / width)
    batch = {
        "logsnr_t": logsnr,
        "logsnr_e": settings.logsnr_min + width * (segment + 1),
        "is_last": segment >= settings.num_calls - 1,
    }
    end = gaussian.expand(batch["logsnr_e"], x_t)
    scale = jnp.where(
        gaussian.expand(batch["is_last"], x_t), jnp.sqrt(VARIANCE), std_of_x_t(end)
    )
    x_e = x_t * scale / std_of_x_t(gaussian.expand(logsnr, x_t))
    return consistency.reference(x_t, x_e, batch)


@pytest.mark.parametrize("num_calls", [1, 2, 4])
def test_an_ideal_student_is_what_the_loss_asks_for(num_calls):
    settings = Consistency(num_calls, substeps=(64, 64))
    batch = make_batch(settings, jax.random.key(0))
    wanted = exact(settings, batch["x_t"], batch["logsnr_t"])
    x_hat_s = exact(settings, batch["x_s"], batch["logsnr_s"])
    is_end = batch["is_end"][:, None]
    reached = consistency.end_of_segment(
        batch["x_s"], x_hat_s, batch["logsnr_s"], batch
    )
    x_e = jnp.where(is_end, batch["x_e"], reached)
    found = consistency.reference(batch["x_t"], x_e, batch)
    np.testing.assert_allclose(found, wanted, atol=0.02)
    assert batch["logsnr_t"].min() >= -8.0 and batch["logsnr_e"].max() <= 9.0 + 1e-4


@pytest.mark.parametrize("num_calls", [1, 2, 4])
def test_the_samples_of_an_ideal_student_have_the_variance_of_the_data(num_calls):
    """Those of the teacher with as few calls have less."""
    settings = Consistency(num_calls)
    x = sample(settings, functools.partial(exact, settings))
    np.testing.assert_allclose(x.var(0), VARIANCE[0], rtol=0.1)
    assert np.all(sample(settings, teach).var(0) < 0.8 * VARIANCE[0])


@pytest.mark.parametrize("num_calls", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_training_reaches_mean_and_variance_of_the_data(num_calls):
    """From the teacher's weights, whose samples have too little variance.

    A single segment takes longer: its targets rest on a chain of 24 predictions.
    """
    settings, student = Consistency(num_calls, substeps=(4, 16)), Student()
    steps = 1500
    tx = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    @jax.jit
    def train(params):
        def update(carry, i):
            params, opt = carry
            key = jax.random.fold_in(jax.random.key(2), i)
            batch = make_batch(settings, key, progress=i / steps)

            def loss(params):
                terms = settings.loss(params, batch, key, i, denoise_image=student)
                return jnp.mean(terms.loss)

            updates, opt = tx.update(jax.grad(loss)(params), opt)
            return (optax.apply_updates(params, updates), opt), None

        return jax.lax.scan(update, (params, tx.init(params)), jnp.arange(steps))[0][0]

    params = train({"decoder": student.init()})
    x = sample(settings, lambda x_t, logsnr: student(params, x_t, logsnr, None, None))
    np.testing.assert_allclose(x.var(0), VARIANCE[0], rtol=0.1)
    np.testing.assert_allclose(x.mean(0) / jnp.sqrt(VARIANCE[0]), 0.0, atol=0.1)


def test_parts_of_a_segment_grow_with_training():
    widths = [
        np.unique(np.round(b["logsnr_s"] - b["logsnr_t"], 3))
        for b in (
            make_batch(Consistency(2, substeps=(2, 10)), jax.random.key(0), progress=p)
            for p in (0.0, 1)
        )
    ]
    np.testing.assert_allclose(widths[0], 8.5 / 2, atol=1e-3)
    np.testing.assert_allclose(widths[1], 8.5 / 10, atol=1e-3)


BREAKS = (
    Break(
        "a student that is taught the mean",
        "ul/objectives/consistency.py",
        'x_e = jnp.where(is_end, batch["x_e"], reached)',
        'x_e = batch["x_e"]',
        "test_training_reaches_mean_and_variance_of_the_data",
    ),
    Break(
        "a reference that forgets where x_t is",
        "ul/objectives/consistency.py",
        "(x_e - ratio * x_t) / slope",
        "x_e / slope",
        "test_an_ideal_student_is_what_the_loss_asks_for",
    ),
)
