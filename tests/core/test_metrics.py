"""Mergeable accumulators."""

import jax
import jax.numpy as jnp
import numpy as np

from ul.core.metrics import Moments


def test_merged_moments_equal_the_moments_of_all_unmasked_values():
    values = 1000.0 + np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    mask = (np.arange(35).reshape(5, 7) % 3 > 0).astype(np.float32)
    total = Moments.empty()
    for v, m in zip(values, mask, strict=True):
        total = total.merge(Moments.from_values(jnp.asarray(v), jnp.asarray(m)))
    unmasked = values[mask > 0].astype(np.float64)
    np.testing.assert_allclose(total.compute(), unmasked.mean(), rtol=1e-6)
    sem = unmasked.std(ddof=1) / np.sqrt(unmasked.size)
    # Near 1000, float32 leaves the deviations four digits.
    np.testing.assert_allclose(total.sem(), sem, rtol=1e-3)


def test_a_masked_nan_does_not_affect_the_mean():
    values, mask = jnp.asarray([1.0, jnp.nan]), jnp.asarray([1.0, 0.0])
    assert float(Moments.from_values(values, mask).compute()) == 1.0


def test_moments_are_a_pytree():
    moments = Moments.from_values(jnp.asarray([1.0, 3.0]))
    merged = jax.jit(lambda m: m.merge(m))(moments)
    assert (float(merged.count), float(merged.compute())) == (4.0, 2.0)
