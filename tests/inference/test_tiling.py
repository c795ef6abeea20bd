"""Decoding in tiles: one tile is the whole image, and more have no seams."""

import dataclasses

import jax
import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.breaks import Break
from ul.core import rng
from ul.core.errors import ConfigError, DataError
from ul.inference import tiling


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """An untrained autoencoder of 8x8 images, whose latents have 4x4 cells."""
    workdir = tmp_path_factory.mktemp("tiling") / "s1"
    parsed = untrained.parsed("digits", "smoke")
    return ul.load_autoencoder(untrained.leave(workdir, parsed, (2,)))


def images(*sides):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (2, *sides, 1), np.uint8)


def test_one_tile_is_what_the_whole_image_gives(autoencoder):
    image = images(8, 8)
    z = tiling.encode(autoencoder, image)
    np.testing.assert_array_equal(z, autoencoder.encode(image))
    for noisy in (False, True):
        np.testing.assert_array_equal(
            tiling.decode(autoencoder, z, noisy=noisy, seed=3),
            autoencoder.decode(z, noisy=noisy, seed=3),
        )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "sides",
    [pytest.param((8, 24), marks=SLOW), pytest.param((20, 8), marks=SLOW), (14, 18)],
)
def test_any_shape_is_decoded_and_depends_on_the_seed(autoencoder, sides):
    z = tiling.encode(autoencoder, images(*sides))
    assert z.shape == (2, sides[0] // 2, sides[1] // 2, 4)
    first, other = (tiling.decode(autoencoder, z, seed=s) for s in (0, 1))
    assert first.shape == (2, *sides, 1) and np.any(first != other)


@SLOW
def test_the_memory_of_the_device_does_not_grow_with_the_image(
    autoencoder, monkeypatch
):
    """All tiles go through the device in batches of one size; the rest is on the host."""
    map_rows, calls = type(autoencoder).map_rows, []

    def measured(self, title, fn, **batch):
        def on_device(z, start, row):
            calls[-1].append((z.shape, sum(a.nbytes for a in jax.live_arrays())))
            return fn(z, start, row)

        return map_rows(self, title, on_device, **batch)

    monkeypatch.setattr(type(autoencoder), "map_rows", measured)
    for cells in (13, 13, 25):  # the first call places the parameters
        calls.append([])
        z = np.zeros((1, cells, cells, 4), np.float32)
        assert tiling.decode(autoencoder, z).shape == (1, 2 * cells, 2 * cells, 1)
    _, small, large = calls
    assert len(large) >= 4 * len(small)
    assert {shape for shape, _ in small} == {shape for shape, _ in large}
    slack = 2 * np.prod(large[0][0]) * 4  # the results of the batch before
    assert max(b for _, b in large) <= max(b for _, b in small) + slack


@pytest.mark.parametrize(
    ("grid", "overlap"), [((4, 4), 1), ((9, 4), 0), ((9, 13), 1), ((11, 6), 3)]
)
def test_tiles_cover_the_grid_and_their_weights_add_up_to_one(grid, overlap):
    total = np.zeros((grid[0] * 2, grid[1] * 2))
    for rows, columns in tiling.plan_tiles(grid, (4, 4), overlap):
        own = np.outer(rows.weight(2), columns.weight(2))
        total[rows.pixels(2), columns.pixels(2)] += own
        shared = (rows.before, rows.after, columns.before, columns.after)
        assert all(cells == 0 or cells >= overlap for cells in shared)
    if overlap <= 2:  # a cell in three tiles has a larger sum, by which it is divided
        np.testing.assert_allclose(total, 1.0, rtol=1e-6)
    assert total.min() > 0


def test_neighboring_tiles_share_their_noise():
    """Parts of a field agree where they overlap, and the first is that of a whole image."""
    shape, row, key = (8, 8, 1), np.zeros(3, np.int32), jax.random.key(0)
    start = np.asarray([[0, 0], [3, 5], [11, 13]], np.int32)
    origin, second, third = np.asarray(tiling.cut_noise(start, key, row, shape))
    np.testing.assert_array_equal(
        origin, rng.normal(key, jax.numpy.asarray(row), shape)[0]
    )
    np.testing.assert_array_equal(origin[3:, 5:], second[:5, :3])
    assert not np.any(np.isin(third, origin))
    both = np.asarray([[3, 5], [7, 9]], np.int32)
    a, b = np.asarray(tiling.cut_noise(both, key, row[:2], shape))
    np.testing.assert_array_equal(a[4:, 4:], b[:4, :4])


def test_the_seams_of_noise_are_where_no_tile_ends(autoencoder):
    """With the noise itself as the image, tiles in any arrangement give one field."""
    decoder = autoencoder.codec.decoder

    def denoise_image(params, x_t, logsnr, z_0, key):
        return 0.9 * x_t

    changed = dataclasses.replace(decoder, denoise_image=denoise_image)
    codec = dataclasses.replace(autoencoder.codec, decoder=changed)
    stage = dataclasses.replace(autoencoder.stage, codec=codec)
    noise = dataclasses.replace(autoencoder, stage=stage)
    z = np.zeros((1, 10, 9, 4), np.float32)
    by_overlap = [tiling.decode(noise, z, overlap=overlap) for overlap in (0, 1, 3)]
    assert by_overlap[0].std() > 2
    for other in by_overlap[1:]:
        assert np.abs(other.astype(int) - by_overlap[0]).max() <= 1


def test_impossible_tiles_are_refused(autoencoder):
    with pytest.raises(DataError, match="must be multiples of 2x2 pixels.*; got 9x8"):
        tiling.encode(autoencoder, images(9, 8))
    with pytest.raises(DataError, match="at least 4x4 cells.*; got 2x4"):
        tiling.encode(autoencoder, images(4, 8))
    for shape in ((2, 8, 8, 3), (8, 8, 4)):
        with pytest.raises(DataError, match="Latents must have the shape .*; got"):
            tiling.decode(autoencoder, np.zeros(shape, np.float32))
    with pytest.raises(ConfigError, match="below the 4 latent cells of a tile; got 4"):
        tiling.encode(autoencoder, images(8, 8), overlap=4)


BREAKS = (
    Break(
        "each tile with the noise of the first",
        "ul/inference/tiling.py",
        "jnp.where(number == 0, key, other)",
        "key",
        "test_neighboring_tiles_share_their_noise",
    ),
    Break(
        "tiles that are not blended",
        "ul/inference/tiling.py",
        "weight = np.minimum(weight, position / (self.before * cell))",
        "pass",
        "test_tiles_cover_the_grid_and_their_weights_add_up_to_one",
    ),
)
