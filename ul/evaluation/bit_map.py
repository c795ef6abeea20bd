"""Maps of the bits per pixel of one picture, larger than what the autoencoder takes."""

from collections.abc import Sequence

import numpy as np

from ul.core.errors import ConfigError, DataError
from ul.data import image_files
from ul.evaluation import bit_plots
from ul.evaluation.model_metrics import split_rate
from ul.inference import api


def read_picture(path: str, reduce: int, channels: int) -> np.ndarray:
    """Return an image file as uint8 [H, W, C], squares of `reduce` pixels averaged.

    Raises:
      DataError: it cannot be read, or has more than 8 bits per channel.
    """
    try:
        small = image_files.read_image(path, channels).reduce(reduce)
    except image_files.UNREADABLE as e:
        raise DataError(f"{path} cannot be read as an image: {e}") from e
    return np.asarray(small).reshape(small.height, small.width, channels)


def split_into_tiles(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return [rows, columns, H, W, C]: as many whole tiles as fit, from the top left.

    Raises:
      DataError: not one fits.
    """
    rows, columns = image.shape[0] // shape[0], image.shape[1] // shape[1]
    if not rows or not columns:
        raise DataError(
            f"The picture must be at least {shape[0]}x{shape[1]}, as the autoencoder "
            f"takes; it is {image.shape[0]}x{image.shape[1]}. Pass a "
            "smaller --reduce or a larger picture."
        )
    tiles = image[: rows * shape[0], : columns * shape[1]]
    tiles = tiles.reshape(rows, shape[0], columns, shape[1], shape[2])
    return tiles.transpose(0, 2, 1, 3, 4)


def join_tiles(tiles: np.ndarray) -> np.ndarray:
    """Return tiles [rows, columns, h, w, ...] as one array [rows h, columns w, ...]."""
    rows, columns, height, width, *rest = tiles.shape
    return tiles.swapaxes(1, 2).reshape(rows * height, columns * width, *rest)


def draw(
    workdirs: Sequence[str],
    path: str,
    *,
    reconstruct: bool,
    reduce: int,
    step,
    weights: str,
    seed: int,
) -> bytes:
    """Return a PNG: a picture and a map of its bits per pixel under each stage-1 run.

    reconstruct: also draw the reconstruction by each run. Bits and reconstructions are
    computed tile by tile, so the borders of the tiles are visible.

    Raises:
      ConfigError: the prior and the decoder of a run are not both diffusions, or it is
        a run of clips.
      CheckpointError, DataError: as the loaders.
    """
    columns, pictures = [], []
    for workdir in workdirs:
        picture, column = _column(
            workdir,
            path,
            reconstruct=reconstruct,
            reduce=reduce,
            step=step,
            weights=weights,
            seed=seed,
        )
        pictures.append(picture)
        columns.append(column)
    if any(picture.shape != pictures[0].shape for picture in pictures):
        raise ConfigError(
            "Runs in one figure must have images of one size, so that the same tiles fit; "
            f"got pictures of {', '.join(str(list(p.shape)) for p in pictures)}."
        )
    return bit_plots.compare(pictures[0], columns)


def _column(
    workdir: str, path: str, *, reconstruct: bool, reduce: int, step, weights, seed: int
) -> tuple[np.ndarray, bit_plots.BitColumn]:
    """Return the picture, cut to whole tiles, and what one run makes of it."""
    networks = ("encoder", "prior", "decoder") if reconstruct else ("encoder", "prior")
    ae = api.restore_stage1(workdir, networks, step=step, weights=weights)
    diffusions = ae.stage.joint_diffusion
    if diffusions is None:
        raise ConfigError(
            "A map of bits needs a diffusion prior and a diffusion decoder; "
            f"{workdir} holds a run of stage {ae.stage.name!r}. Pass a run of stage "
            "'joint'."
        )
    if len(ae.image_shape) != 3:
        raise ConfigError(
            f"A map of bits needs a run of images; {workdir} holds a run of clips of "
            f"shape {list(ae.image_shape)}."
        )
    picture = read_picture(path, reduce, ae.image_shape[2])
    tiles = split_into_tiles(picture, ae.image_shape)
    rows = tiles.reshape(-1, *ae.image_shape)
    heat = split_rate(ae, diffusions, rows, seed).bpp_by_position
    heat = join_tiles(heat.reshape(*tiles.shape[:2], *heat.shape[1:]))
    reconstruction = None
    if reconstruct:
        decoded = ae.reconstruct(rows, seed=seed, progress=True)
        reconstruction = join_tiles(decoded.reshape(tiles.shape))
    return join_tiles(tiles), bit_plots.BitColumn(heat, reconstruction)
