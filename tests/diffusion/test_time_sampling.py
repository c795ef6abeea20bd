import jax
import jax.numpy as jnp
import numpy as np

from ul.diffusion import time_sampling

ROWS = 64
STRATUM = jnp.arange(ROWS) / ROWS


def test_every_stratum_gets_one_time():
    t = time_sampling.stratified(jax.random.key(3), STRATUM)
    assert 0.0 <= float(t.min()) and float(t.max()) < 1.0
    np.testing.assert_array_equal(np.sort(np.floor(t * ROWS)), np.arange(ROWS))


def test_a_part_of_the_batch_gets_its_own_times():
    key = jax.random.key(3)
    whole = time_sampling.stratified(key, STRATUM)
    np.testing.assert_array_equal(
        time_sampling.stratified(key, STRATUM[5::4]), whole[5::4]
    )


def test_one_row_is_uniform_over_draws():
    keys = jax.random.split(jax.random.key(0), 2000)
    t = jax.vmap(lambda k: time_sampling.stratified(k, STRATUM[7:8]))(keys)
    assert abs(float(t.mean()) - 0.5) < 4 * np.sqrt(1 / 12 / 2000)
