"""Stratified times."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.lib.breaks import Break
from ul.diffusion import time_sampling

NUM_ROWS = 64
STRATUM = jnp.arange(NUM_ROWS) / NUM_ROWS


def test_every_stratum_gets_exactly_one_time():
    t = time_sampling.sample_stratified(jax.random.key(3), STRATUM)
    assert 0.0 <= float(t.min()) and float(t.max()) < 1.0
    np.testing.assert_array_equal(np.sort(np.floor(t * NUM_ROWS)), np.arange(NUM_ROWS))


def test_the_time_of_a_row_does_not_depend_on_the_batch():
    key = jax.random.key(3)
    full = time_sampling.sample_stratified(key, STRATUM)
    np.testing.assert_array_equal(
        time_sampling.sample_stratified(key, STRATUM[5::4]), full[5::4]
    )


def test_the_time_of_one_row_is_uniform_over_keys():
    keys = jax.random.split(jax.random.key(0), 2000)
    t = jax.vmap(lambda k: time_sampling.sample_stratified(k, STRATUM[7:8]))(keys)
    assert abs(float(t.mean()) - 0.5) < 4 * np.sqrt(1 / 12 / 2000)


BREAKS = (
    Break(
        "times that are not stratified",
        "ul/diffusion/time_sampling.py",
        "jnp.mod(stratum + u, 1.0)",
        "jnp.mod(0.0 * stratum + u, 1.0)",
        "test_every_stratum_gets_exactly_one_time",
    ),
)
