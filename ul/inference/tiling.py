"""Encode and decode images that are larger than those of training, tile by tile.

A tile has the size of training images. Neighboring tiles overlap, and their noise is cut
from one field, so they agree where they overlap; there they are blended. A single
tile gives exactly what `Autoencoder.encode` and `decode` give. Clips are tiled in height and
width. Images are processed on the device in batches of tiles, whatever their size.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ul.core import rng
from ul.core.errors import ConfigError, DataError
from ul.diffusion import gaussian
from ul.inference.models import Autoencoder, seed_key
from ul.stages.codec import DiffusionDecoder

# Latent cells that neighboring tiles share.
DEFAULT_OVERLAP = 1


class Span(NamedTuple):
    """The rows or the columns of a tile, in latent cells.

    before, after: cells that it shares with the neighbors on either side.
    """

    start: int
    size: int
    before: int
    after: int

    def pixels(self, cell: int) -> slice:
        """Return its pixels, for cells of `cell` pixels."""
        return slice(self.start * cell, (self.start + self.size) * cell)

    def weight(self, cell: int) -> np.ndarray:
        """Return the weight of each pixel, which falls where tiles overlap."""
        length = self.size * cell
        position = np.arange(length, dtype=np.float32) + 0.5
        weight = np.ones(length, np.float32)
        if self.before:
            weight = np.minimum(weight, position / (self.before * cell))
        if self.after:
            weight = np.minimum(weight, (length - position) / (self.after * cell))
        # Smoothly to zero, because predictions at the edge of a tile are the worst.
        return weight**2 * (3.0 - 2.0 * weight)

    def kept(self) -> slice:
        """Return the cells of the tile that no neighbor has farther from its edge."""
        return slice(self.before // 2, self.size - (self.after - self.after // 2))


class Tile(NamedTuple):
    """A tile of a latent grid."""

    rows: Span
    columns: Span


def plan_tiles(
    grid: tuple[int, int], tile: tuple[int, int], overlap: int
) -> list[Tile]:
    """Return tiles of equal size that cover a grid and overlap by at least `overlap` cells.

    Raises:
      ConfigError: the overlap leaves no room for progress.
      DataError: the grid is smaller than a tile.
    """
    if not 0 <= overlap < min(tile):
        raise ConfigError(
            f"The overlap must be at least 0 and below the {min(tile)} latent cells of a "
            f"tile; got {overlap}."
        )
    if grid[0] < tile[0] or grid[1] < tile[1]:
        raise DataError(
            f"The latents must have at least {tile[0]}x{tile[1]} cells, as those of training "
            f"have; got {grid[0]}x{grid[1]}. Enlarge the image."
        )
    rows, columns = (
        _spans(length, size, overlap) for length, size in zip(grid, tile, strict=True)
    )
    return [Tile(*pair) for pair in itertools.product(rows, columns)]


def _spans(length: int, size: int, overlap: int) -> list[Span]:
    count = max(1, math.ceil((length - overlap) / (size - overlap)))
    starts = [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
    shared = [a + size - b for a, b in itertools.pairwise(starts)]
    pairs = zip([0, *shared], [*shared, 0], strict=True)
    return [
        Span(start, size, before, after)
        for start, (before, after) in zip(starts, pairs, strict=True)
    ]


def encode(
    autoencoder: Autoencoder, images: np.ndarray, *, overlap: int = DEFAULT_OVERLAP
) -> np.ndarray:
    """Encode uint8 images [N, H, W, C] of at least the training size, without noise.

    overlap: latent cells that neighboring tiles share at least; each cell of the result
    comes from the tile in which it is farther from the edge.

    Raises:
      DataError: sides that are too small or no multiples of the encoder's downsampling.
      ConfigError: an impossible overlap.
    """
    cell = _cell(autoencoder)
    sides = images.shape[-3:-1]
    if any(size % factor for size, factor in zip(sides, cell, strict=True)):
        raise DataError(
            f"The sides of images must be multiples of {cell[0]}x{cell[1]} pixels, a latent "
            f"cell; got {sides[0]}x{sides[1]}. Crop or pad them."
        )
    grid = sides[0] // cell[0], sides[1] // cell[1]
    *lead, _, _, channels = autoencoder.latent_shape
    z = np.zeros((len(images), *lead, *grid, channels), np.float32)
    for rows, columns in plan_tiles(grid, _tile_shape(autoencoder), overlap):
        pixels = images[..., rows.pixels(cell[0]), columns.pixels(cell[1]), :]
        encoded = autoencoder.encode(pixels)[..., rows.kept(), columns.kept(), :]
        top, left = (span.start + span.kept().start for span in (rows, columns))
        bottom, right = top + encoded.shape[-3], left + encoded.shape[-2]
        z[..., top:bottom, left:right, :] = encoded
    return z


def decode(
    autoencoder: Autoencoder,
    z: np.ndarray,
    *,
    noisy: bool = False,
    seed: int = 0,
    overlap: int = DEFAULT_OVERLAP,
    progress: bool = False,
) -> np.ndarray:
    """Decode latents [N, h, w, c] of at least the training grid to uint8 [N, H, W, C].

    noisy, seed: as in `Autoencoder.decode`. overlap: latent cells that neighboring tiles
    share at least.

    Raises:
      DataError: a grid that is smaller than that of training, or other channels.
      ConfigError: an impossible overlap.
    """
    _check_latents(autoencoder, z)
    cell, size = _cell(autoencoder), autoencoder.stage.evaluation.batch_size
    grid = z.shape[-3], z.shape[-2]
    tiles = plan_tiles(grid, _tile_shape(autoencoder), overlap)
    *lead, _, _, channels = autoencoder.image_shape
    shape = (*lead, grid[0] * cell[0], grid[1] * cell[1], channels)
    images = np.empty((len(z), *shape), np.uint8)
    decode_tiles = _tile_decoder(autoencoder, noisy, seed_key(seed))
    bar = tqdm(
        total=len(z) * len(tiles),
        unit="tile",
        desc="decode",
        dynamic_ncols=True,
        disable=not progress,
    )
    with bar:
        for number, latent in enumerate(z):
            total = np.zeros(shape, np.float32)
            weight = np.zeros((*shape[-3:-1], 1), np.float32)
            for first in range(0, len(tiles), size):
                batch = tiles[first : first + size]
                parts = [
                    latent[..., t.rows.pixels(1), t.columns.pixels(1), :] for t in batch
                ]
                start = [(t.rows.start, t.columns.start) for t in batch]
                decoded = autoencoder.map_rows(
                    "",
                    decode_tiles,
                    z=np.stack(parts),
                    start=np.asarray(start, np.int32),
                    row=np.full(len(batch), number, np.int32),
                )
                for (rows, columns), x in zip(batch, decoded, strict=True):
                    here = rows.pixels(cell[0]), columns.pixels(cell[1])
                    sides = rows.weight(cell[0]), columns.weight(cell[1])
                    own = np.multiply.outer(*sides)[..., None]
                    total[..., here[0], here[1], :] += own * x
                    weight[here[0], here[1]] += own
                bar.update(len(batch))
            levels = np.round((total / weight + 1.0) * 127.5)
            images[number] = np.clip(levels, 0, 255).astype(np.uint8)
    return images


def _check_latents(autoencoder: Autoencoder, z: np.ndarray) -> None:
    """Raise DataError unless latents differ from those of training only in their grid."""
    *frames, _, _, width = autoencoder.latent_shape
    if z.ndim != len(autoencoder.latent_shape) + 1 or (
        [*z.shape[1:-3], z.shape[-1]] != [*frames, width]
    ):
        raise DataError(
            f"Latents must have the shape {('N', *frames, 'h', 'w', width)}; got {z.shape}. "
            "Pass what encode returns."
        )


def _tile_shape(autoencoder: Autoencoder) -> tuple[int, int]:
    """Return the height and width of a tile in latent cells."""
    height, width = autoencoder.latent_shape[-3:-1]
    return height, width


def _cell(autoencoder: Autoencoder) -> tuple[int, int]:
    """Return the height and width of a latent cell in pixels."""
    sides = zip(
        autoencoder.image_shape[-3:-1], autoencoder.latent_shape[-3:-1], strict=True
    )
    height, width = (size // cells for size, cells in sides)
    return height, width


def _tile_decoder(autoencoder: Autoencoder, noisy: bool, key):
    """Return `decode(z, start, row) -> x` in -1..1 for a batch of tiles of an image."""
    codec, cell = autoencoder.codec, np.asarray(_cell(autoencoder), np.int32)

    @jax.jit
    def decode(z, start, row):
        z_0 = z
        if not noisy:
            stream = rng.stream(key, "encoder_noise")
            eps = cut_noise(start, stream, row, codec.latent_shape)
            z_0 = gaussian.corrupt(z, eps, codec.latent_logsnr)
        if not isinstance(codec.decoder, DiffusionDecoder):
            return codec.decoder(autoencoder.params, z_0, row, key)
        normal = functools.partial(cut_noise, start * cell[None])
        return codec.decoder(autoencoder.params, z_0, row, key, normal)

    return decode


def cut_noise(start, key, row, shape: tuple[int, ...]):
    """Return the parts [B, *shape] at `start` [B, 2] of fields of noise, one per row [B].

    A field consists of blocks of `shape` with a key each. The block at the origin is that
    of `rng.normal`, so a field is known without its size.
    """
    sides = np.asarray(shape[-3:-1], np.int32)

    def cut(start, row):
        first = start // sides

        def block(down, right):
            number = (first[0] + down) * 2**15 + first[1] + right
            other = jax.random.fold_in(key, number)
            own = jax.random.fold_in(jnp.where(number == 0, key, other), row)
            return jax.random.normal(own, shape, jnp.float32)

        rows = [
            jnp.concatenate([block(down, 0), block(down, 1)], axis=-2)
            for down in (0, 1)
        ]
        field, offset = jnp.concatenate(rows, axis=-3), start - first * sides
        zeros = (0,) * (len(shape) - 3)
        return jax.lax.dynamic_slice(field, (*zeros, offset[0], offset[1], 0), shape)

    return jax.vmap(cut)(start, row)
