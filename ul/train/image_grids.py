"""Clips as pictures: their frames side by side, or moving."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ul.train.writer import grid


def strip(clips: np.ndarray, frames: Sequence[int], scale: int = 1) -> np.ndarray:
    """[N, T, H, W, C] uint8 to one picture: a row a clip, of these frames side by side."""
    chosen = clips[:, list(frames)]
    return grid(chosen.reshape(-1, *chosen.shape[2:]), len(frames), scale)


# Of a clip, so many frames are shown side by side.
SHOWN = 8
# Of animations: slow enough to follow what moves.
FPS = 8.0


def picture(examples: np.ndarray, columns: int, scale: int = 1) -> np.ndarray:
    """Images in rows of `columns`; of clips a row each, some frames evenly through it."""
    if examples.ndim == 4:
        return grid(examples, columns, scale)
    last = examples.shape[1] - 1
    frames = np.linspace(0, last, min(SHOWN, last + 1)).round().astype(int)
    return strip(examples, frames.tolist(), scale)


def gif(clips: np.ndarray, fps: float, scale: int = 1) -> bytes:
    """[N, T, H, W, 1 or 3] uint8 to an animated GIF of all clips in a square, for ever.

    A GIF's time runs in hundredths of a second, its frames have 256 colours each.
    """
    columns = math.ceil(math.sqrt(len(clips)))
    sheets = [grid(clips[:, t], columns, scale) for t in range(clips.shape[1])]
    first, *others = [
        Image.fromarray(s[..., 0] if s.shape[-1] == 1 else s) for s in sheets
    ]
    content = io.BytesIO()
    # Shorter than 0.02 s browsers show as 0.1 s.
    hundredths = max(2, round(100.0 / fps))
    first.save(
        content, "GIF", save_all=True, append_images=others,
        duration=10 * hundredths, loop=0,
    )  # fmt: skip
    return content.getvalue()
