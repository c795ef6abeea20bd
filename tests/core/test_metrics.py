import jax
import jax.numpy as jnp
import numpy as np

from ul.core.metrics import Moments


def test_merged_moments_are_those_of_all_unmasked_values():
    values = 1000.0 + np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    mask = (np.arange(35).reshape(5, 7) % 3 > 0).astype(np.float32)
    total = Moments.empty()
    for v, m in zip(values, mask, strict=True):
        total = total.merge(Moments.of(jnp.asarray(v), jnp.asarray(m)))
    kept = values[mask > 0].astype(np.float64)
    np.testing.assert_allclose(total.compute(), kept.mean(), rtol=1e-6)
    sem = kept.std(ddof=1) / np.sqrt(kept.size)
    # float32 about 1000: the deviations keep four digits.
    np.testing.assert_allclose(total.sem(), sem, rtol=1e-3)


def test_masked_nan_does_not_leak():
    m = Moments.of(jnp.asarray([1.0, jnp.nan]), jnp.asarray([1.0, 0.0]))
    assert float(m.compute()) == 1.0


def test_is_a_pytree():
    m = jax.jit(lambda a: a.merge(a))(Moments.of(jnp.asarray([1.0, 3.0])))
    assert (float(m.count), float(m.compute())) == (4.0, 2.0)
