"""Dropout: its rate, independent masks, and the same mask on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core import mesh as meshes
from ul.models.dropout import Dropout, keep_mask

SHAPE = (64, 128, 96)
# A mean of n independent signs lies within this many standard deviations, 1 / sqrt(n), of 0
# in all but one of a million cases.
SIGMAS = 5.0


def signs(key, shape=SHAPE, rate=0.5):
    """Return the mask as numbers of mean 0 and variance 1, if it is what it should be."""
    keep = np.asarray(keep_mask(key, shape, rate), np.float64)
    return (keep - (1.0 - rate)) / np.sqrt(rate * (1.0 - rate))


def is_zero(mean, count):
    return abs(mean) < SIGMAS / np.sqrt(count)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_rate_holds_overall_and_along_every_axis(rate):
    mask = signs(jax.random.key(0), rate=rate)
    assert is_zero(mask.mean(), mask.size)
    for axis, size in enumerate(SHAPE):
        others = tuple(i for i in range(len(SHAPE)) if i != axis)
        means = mask.mean(axis=others) * np.sqrt(mask.size / size)
        assert np.abs(means).max() < SIGMAS
        # Were the means of slices too equal, the mask would not be random either.
        assert 0.5 < means.var() < 1.7


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 8, 64, 96, 128, 4096])
def test_neighbors_are_independent_in_every_direction(lag):
    mask = signs(jax.random.key(1))
    within_rows = mask.reshape(SHAPE[0], -1)
    product = within_rows[:, lag:] * within_rows[:, :-lag]
    assert is_zero(product.mean(), product.size)
    if lag < SHAPE[0]:
        product = mask[lag:] * mask[:-lag]
        assert is_zero(product.mean(), product.size)


def test_masks_of_other_keys_are_independent():
    """Keys of the layers and the steps of a run are folded from one key."""
    root = jax.random.key(2)
    keys = [jax.random.fold_in(root, i) for i in range(6)]
    keys += [jax.random.key(0), jax.random.key(1), jax.random.wrap_key_data(
        jnp.asarray([1, 0], jnp.uint32)
    )]  # fmt: skip
    masks = np.stack([signs(key).ravel() for key in keys])
    correlation = masks @ masks.T / masks.shape[1]
    others = correlation[~np.eye(len(keys), dtype=bool)]
    assert np.abs(others).max() < SIGMAS / np.sqrt(masks.shape[1])
    # The mask of one key is not that of another one, moved.
    first, second = np.fft.rfft(masks[0]), np.fft.rfft(masks[1])
    moved = np.fft.irfft(first * second.conj()) / masks.shape[1]
    assert np.abs(moved).max() < 6.5 / np.sqrt(masks.shape[1])


def test_runs_of_equal_decisions_have_their_lengths():
    keep = np.asarray(keep_mask(jax.random.key(3), SHAPE, 0.5)).ravel()
    lengths = np.diff(np.flatnonzero(np.diff(keep)))
    counts = np.bincount(lengths, minlength=12)[1:11]
    expected = len(lengths) * 0.5 ** np.arange(1, 11)
    assert np.sum((counts - expected) ** 2 / expected) < 37.3  # p of 1e-4 at 11 degrees


def test_the_mask_does_not_depend_on_the_mesh():
    def mask(key):
        return keep_mask(key, SHAPE, 0.3)

    key = jax.random.key(4)
    expected = np.asarray(mask(key))
    for axes in ((8, 1), (2, 4)):
        mesh = meshes.make(*axes)
        with jax.set_mesh(mesh):
            sharded = jax.jit(mask, out_shardings=meshes.batch_sharding(mesh))(key)
        assert np.array_equal(np.asarray(sharded), expected)


def test_the_mask_of_a_row_does_not_depend_on_the_batch():
    """So no counter runs over all elements of a batch, which may be more than 2^32."""
    key = jax.random.key(5)
    few, many = (keep_mask(key, (n, *SHAPE[1:]), 0.5) for n in (4, 64))
    assert np.array_equal(few, many[:4])


def test_what_is_kept_is_scaled_and_a_rate_of_zero_needs_no_key():
    x = jnp.full((8, 1000), 3.0, jnp.bfloat16)
    y = Dropout(0.25).apply({}, x, rngs={"dropout": jax.random.key(6)})
    assert y.dtype == x.dtype
    assert np.array_equal(np.unique(np.asarray(y, np.float32)), [0.0, 4.0])
    assert Dropout(0.0).apply({}, x) is x


BREAKS = (
    Break(
        "a hash too weak for dropout",
        "ul/models/dropout.py",
        "_mix_upper_bits(_mix(element ^ first) + _mix(row ^ second))",
        "(element ^ first) * jnp.uint32(0x9E3779B9) + _mix(row ^ second)",
        "test_neighbors_are_independent_in_every_direction",
    ),
    Break(
        "one mask for all rows",
        "ul/models/dropout.py",
        "_mix(row ^ second))",
        "second + 0 * row)",
        "test_neighbors_are_independent_in_every_direction",
    ),
    Break(
        "rows counted from the last one of their batch",
        "ul/models/dropout.py",
        "_mix(row ^ second))",
        "_mix((shape[0] - row) ^ second))",
        "test_the_mask_of_a_row_does_not_depend_on_the_batch",
    ),
)
