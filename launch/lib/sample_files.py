"""The files of `ul sample`."""

import numpy as np
from etils import epath

from launch.lib import prompts
from ul.train import image_grids
from ul.train.writer import save_bytes, save_png


def save_each(
    folder: epath.Path, samples: np.ndarray, names: list[str], scale: int
) -> None:
    """Write every image as a PNG file and every clip as an animated GIF file.

    scale: how many times each pixel of a clip is enlarged.
    """
    for i, sample in enumerate(samples):
        path = folder / prompts.file_name(i, names[i])
        if sample.ndim == 4:
            content = image_grids.encode_gif(sample[None], image_grids.GIF_FPS, scale)
            save_bytes(path.with_suffix(".gif"), content)
        else:
            save_png(path, sample)
