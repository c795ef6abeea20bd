import jax
import jax.numpy as jnp
import numpy as np

from ul.core import rng

KEY = jax.random.key(0)


def test_a_row_draws_the_same_in_any_batch():
    whole = rng.normal(KEY, jnp.arange(6), (2, 3))
    part = rng.normal(KEY, jnp.asarray([4, 1]), (2, 3))
    np.testing.assert_array_equal(part, whole[jnp.asarray([4, 1])])


def test_rows_names_and_steps_all_draw_differently():
    keys = [
        rng.stream(KEY, "a"),
        rng.stream(KEY, "b"),
        rng.stream(KEY, "a", 1),
        *rng.rows(KEY, jnp.arange(3)),
    ]
    assert len({tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in keys}) == 6


def test_noise_is_standard_normal():
    eps = rng.normal(KEY, jnp.arange(4096), (16,))
    sem = 1 / np.sqrt(eps.size)
    assert abs(float(eps.mean())) < 4 * sem
    assert abs(float(jnp.square(eps).mean()) - 1) < 4 * np.sqrt(2) * sem
