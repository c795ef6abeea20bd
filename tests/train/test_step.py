"""The step against arithmetic: EMA, accumulation, randomness, broken gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ul.core import rng
from ul.objectives.terms import Terms
from ul.train import ema, state, step

ROOT = jax.random.key(0)
BATCH = {
    "x": jnp.linspace(-1, 1, 8),
    "row": jnp.arange(8),
    "stratum": jnp.arange(8) / 8,
}


def objective(params, batch, key, at):
    """|w - x - noise|^2: the noise belongs to the row."""
    noise = rng.normal(rng.stream(key, "noise"), batch["row"], ())
    loss = jnp.square(params["w"] - batch["x"] - noise)
    return Terms(loss=loss, nats={"fit": loss}, stats={"noise": noise})


def slope(params, batch, key, at):
    loss = params["w"] * jnp.ones_like(batch["x"])
    return Terms(loss=loss, nats={}, stats={})


def make(objective, tx=None, accumulate=1, decays=(0.5,)):
    tx = tx or optax.sgd(1.0)
    run = step.make(objective, tx, lambda s: 1.0, root=ROOT, accumulate=accumulate)
    return jax.jit(run), state.create({"w": jnp.zeros(())}, tx, decays)


def test_ema_averages_the_new_parameters(monkeypatch):
    """Gradient 1, rate 1: parameters -1, -2, -3; their EMA with decay 1/2 is known."""
    monkeypatch.setattr(ema, "decay_at", lambda step, decay: decay)
    run, s = make(slope)
    for _ in range(3):
        s, _ = run(s, BATCH)
    np.testing.assert_allclose(s.params["w"], -3.0)
    np.testing.assert_allclose(
        s.ema["0.5"]["w"], -(0.125 * 1 + 0.25 * 2 + 0.5 * 3), rtol=1e-6
    )


def test_ema_decay_rises_to_its_value():
    assert float(ema.decay_at(1, 0.999)) == pytest.approx(2 / 11)
    assert float(ema.decay_at(100_000, 0.999)) == pytest.approx(0.999)


def test_steps_are_counted_and_draw_different_noise():
    run, s = make(objective)
    s1, seen1 = run(s, BATCH)
    _, seen2 = run(s1, BATCH)
    assert int(s1.step) == 1
    assert float(seen1["noise"].mean) != float(seen2["noise"].mean)


def test_a_step_is_a_pure_function():
    run, s = make(objective)
    a, b = run(s, BATCH)[0], run(s, BATCH)[0]
    np.testing.assert_array_equal(a.params["w"], b.params["w"])


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_microbatches_make_the_full_batch(parts):
    (run, s), (split, _) = make(objective), make(objective, accumulate=parts)
    (a, seen_a), (b, seen_b) = run(s, BATCH), split(s, BATCH)
    np.testing.assert_allclose(a.params["w"], b.params["w"], rtol=1e-6)
    for name in seen_a:
        np.testing.assert_allclose(
            seen_a[name].compute(), seen_b[name].compute(), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(seen_a[name].sem(), seen_b[name].sem(), rtol=1e-4)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_broken_gradient_changes_nothing_and_is_seen(bad):
    run, s = make(objective, tx=optax.adam(0.1))
    s, _ = run(s, BATCH)
    after, seen = run(s, BATCH | {"x": BATCH["x"].at[3].set(bad)})
    for a, b in zip(jax.tree.leaves(s), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.isfinite(float(seen["fit_nats"].mean))


def test_split_strides_over_the_rows():
    parts = step.split({"row": jnp.arange(6)}, 2)
    np.testing.assert_array_equal(parts["row"], [[0, 2, 4], [1, 3, 5]])
