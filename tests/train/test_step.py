"""The step against arithmetic: EMA, accumulation, randomness, broken gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lib.breaks import Break
from ul.core import rng
from ul.objectives.terms import Terms
from ul.train import ema, state, step

ROOT = jax.random.key(0)
BATCH = {
    "x": jnp.linspace(-1, 1, 8),
    "row": jnp.arange(8),
    "stratum": jnp.arange(8) / 8,
}


def noisy_objective(params, batch, key, step_number):
    """|w - x - noise|^2, where the noise is that of the row."""
    noise = rng.normal(rng.stream(key, "noise"), batch["row"], ())
    loss = jnp.square(params["w"] - batch["x"] - noise)
    return Terms(loss=loss, nats={"fit": loss}, stats={"noise": noise})


def linear_objective(params, batch, key, step_number):
    loss = params["w"] * jnp.ones_like(batch["x"])
    return Terms(loss=loss, nats={}, stats={})


def step_and_state(objective, tx=None, accumulate=1, ema_names=(0.5,)):
    tx = tx or optax.sgd(1.0)
    train_step = step.make_train_step(
        objective, tx, lambda s: 1.0, root=ROOT, accumulate=accumulate
    )
    return jax.jit(train_step), state.create({"w": jnp.zeros(())}, tx, ema_names)


def test_ema_averages_the_new_parameters(monkeypatch):
    """Gradient 1, rate 1: parameters -1, -2, -3; their EMA with decay 1/2 is known."""
    monkeypatch.setattr(ema, "warmup_decay", lambda step, decay: decay)
    train_step, s = step_and_state(linear_objective)
    for _ in range(3):
        s, _ = train_step(s, BATCH)
    np.testing.assert_allclose(s.params["w"], -3.0)
    np.testing.assert_allclose(
        s.ema["0.5"]["w"], -(0.125 * 1 + 0.25 * 2 + 0.5 * 3), rtol=1e-6
    )


@pytest.mark.parametrize(("clip", "is_clipped"), [(1.5, 0.0), (0.5, 1.0)])
def test_the_share_of_clipped_steps_is_logged(clip, is_clipped):
    """The norm of the gradient is 1."""
    train_step = step.make_train_step(
        linear_objective,
        optax.sgd(1.0),
        lambda s: 1.0,
        root=ROOT,
        accumulate=1,
        clip=clip,
    )
    first = state.create({"w": jnp.zeros(())}, optax.sgd(1.0), ())
    _, moments = jax.jit(train_step)(first, BATCH)
    assert float(moments["grad_norm"].compute()) == 1.0
    assert float(moments["clipped"].compute()) == is_clipped


def test_ema_decay_rises_to_its_value():
    assert float(ema.warmup_decay(1, 0.999)) == pytest.approx(2 / 11)
    assert float(ema.warmup_decay(100_000, 0.999)) == pytest.approx(0.999)


def test_steps_are_counted_and_draw_different_noise():
    train_step, s = step_and_state(noisy_objective)
    s1, moments1 = train_step(s, BATCH)
    _, moments2 = train_step(s1, BATCH)
    assert int(s1.step) == 1
    assert float(moments1["noise"].mean) != float(moments2["noise"].mean)


def test_a_step_is_a_pure_function():
    train_step, s = step_and_state(noisy_objective)
    a, b = train_step(s, BATCH)[0], train_step(s, BATCH)[0]
    np.testing.assert_array_equal(a.params["w"], b.params["w"])


@pytest.mark.parametrize("count", [2, 4, 8])
def test_microbatches_make_the_full_batch(count):
    full_step, s = step_and_state(noisy_objective)
    accumulated_step, _ = step_and_state(noisy_objective, accumulate=count)
    (a, moments_a), (b, moments_b) = full_step(s, BATCH), accumulated_step(s, BATCH)
    np.testing.assert_allclose(a.params["w"], b.params["w"], rtol=1e-6)
    for name in moments_a:
        np.testing.assert_allclose(
            moments_a[name].compute(), moments_b[name].compute(), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            moments_a[name].sem(), moments_b[name].sem(), rtol=1e-4
        )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_broken_gradient_changes_nothing_and_is_reported(bad):
    train_step, s = step_and_state(noisy_objective, tx=optax.adam(0.1))
    s, _ = train_step(s, BATCH)
    after, moments = train_step(s, BATCH | {"x": BATCH["x"].at[3].set(bad)})
    for a, b in zip(jax.tree.leaves(s), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.isfinite(float(moments["fit_nats"].mean))


def test_microbatches_are_strided_over_the_rows():
    parts = step.split_microbatches({"row": jnp.arange(6)}, 2)
    np.testing.assert_array_equal(parts["row"], [[0, 2, 4], [1, 3, 5]])


BREAKS = (
    Break(
        "an EMA of the old parameters",
        "ul/train/step.py",
        "ema=ema.update(state.ema, params,",
        "ema=ema.update(state.ema, state.params,",
        "test_ema_averages_the_new_parameters",
    ),
    Break(
        "the same noise at every training step",
        "ul/train/step.py",
        'rng.stream(root, "train", state.step)',
        'rng.stream(root, "train", 0)',
        "test_steps_are_counted_and_draw_different_noise",
    ),
    Break(
        "a gradient that is not finite is applied",
        "ul/train/step.py",
        "lambda new, old: jnp.where(is_finite, new, old)",
        "lambda new, old: new",
        "test_a_broken_gradient_changes_nothing_and_is_reported",
    ),
    Break(
        "microbatches summed instead of averaged",
        "ul/train/step.py",
        "lambda g: g / accumulate",
        "lambda g: g",
        "test_microbatches_make_the_full_batch",
    ),
)
