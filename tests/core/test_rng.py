"""Random streams by name, step and row."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.lib.breaks import Break
from ul.core import rng

KEY = jax.random.key(0)


def test_the_noise_of_a_row_does_not_depend_on_the_batch():
    full = rng.normal(KEY, jnp.arange(6), (2, 3))
    part = rng.normal(KEY, jnp.asarray([4, 1]), (2, 3))
    np.testing.assert_array_equal(part, full[jnp.asarray([4, 1])])


def test_rows_names_and_steps_give_different_keys():
    keys = [
        rng.stream(KEY, "a"),
        rng.stream(KEY, "b"),
        rng.stream(KEY, "a", 1),
        *rng.row_keys(KEY, jnp.arange(3)),
    ]
    assert len({tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in keys}) == 6


def test_noise_is_standard_normal():
    eps = rng.normal(KEY, jnp.arange(4096), (16,))
    sem = 1 / np.sqrt(eps.size)
    assert abs(float(eps.mean())) < 4 * sem
    assert abs(float(jnp.square(eps).mean()) - 1) < 4 * np.sqrt(2) * sem


BREAKS = (
    Break(
        "noise of a row that depends on its position in the batch",
        "ul/core/rng.py",
        "in_axes=(None, 0))(key, row)",
        "in_axes=(None, 0))(key, jnp.arange(len(row)))",
        "test_the_noise_of_a_row_does_not_depend_on_the_batch",
    ),
    Break(
        "random streams that ignore their name",
        "ul/core/rng.py",
        "zlib.crc32(name.encode())",
        "zlib.crc32(b'')",
        "test_rows_names_and_steps_give_different_keys",
    ),
)
