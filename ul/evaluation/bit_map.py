"""Where the bits go in one picture, larger than what the autoencoder takes."""

import numpy as np
from PIL import Image

from ul.config import AutoencoderConfig
from ul.core.errors import ConfigError, DataError
from ul.evaluation import bit_plots
from ul.evaluation.reconstruction import where_bits_go
from ul.inference import api
from ul.stages import registry


def read(path: str, reduce: int, channels: int) -> np.ndarray:
    """An image file as uint8 [H, W, C], squares of `reduce` pixels averaged.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path} has more than 8 bits a pixel; convert it first"
                )
            small = image.convert("L" if channels == 1 else "RGB").reduce(reduce)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"{path} cannot be read as an image: {e}") from e
    return np.asarray(small).reshape(small.height, small.width, channels)


def tiles(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[rows, columns, H, W, C]: as many whole tiles as fit, from the top left.

    Raises:
      DataError: not one fits.
    """
    rows, columns = image.shape[0] // shape[0], image.shape[1] // shape[1]
    if not rows or not columns:
        raise DataError(
            f"the picture is {image.shape[0]}x{image.shape[1]}, smaller than the "
            f"autoencoder's {shape[0]}x{shape[1]}; reduce it less"
        )
    cut = image[: rows * shape[0], : columns * shape[1]]
    cut = cut.reshape(rows, shape[0], columns, shape[1], shape[2])
    return cut.transpose(0, 2, 1, 3, 4)


def together(tiled: np.ndarray) -> np.ndarray:
    """[rows, columns, h, w, ...] as one [rows h, columns w, ...]."""
    rows, columns, height, width, *rest = tiled.shape
    return tiled.swapaxes(1, 2).reshape(rows * height, columns * width, *rest)


def bit_map(workdir, path: str, *, reduce: int, step, weights: str, seed: int) -> bytes:
    """PNG: the picture beside a map of its bits per pixel, tile by tile.

    Raises:
      ConfigError: the run's prior and decoder are not both UL's.
      CheckpointError, DataError: as the loaders.
    """
    ae = api.restore_stage1(workdir, ("encoder", "prior"), step=step, weights=weights)
    assert isinstance(ae.config, AutoencoderConfig)
    both = registry.stage1(ae.config).diffusions
    if both is None:
        raise ConfigError(
            f"{workdir} is of stage {ae.config.stage!r}, without UL's prior"
        )
    if len(ae.image_shape) != 3:
        raise ConfigError(f"{workdir} is of clips; a map is of a picture")
    tiled = tiles(read(path, reduce, ae.image_shape[2]), ae.image_shape)
    place = where_bits_go(
        ae, both, tiled.reshape(-1, *ae.image_shape), seed
    ).bpp_by_position
    heat = together(place.reshape(*tiled.shape[:2], *place.shape[1:]))
    return bit_plots.maps(together(tiled)[None], heat[None], columns=1, inches=4.5)
