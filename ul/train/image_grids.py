"""Images and clips as one picture: grids, strips of frames, and animated GIFs."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Brightness of the one-pixel border around each image of a grid, 0..255.
BORDER_BRIGHTNESS = 40
# Of the line that follows the given frames of a clip.
CONTEXT_BRIGHTNESS = 255
TEXT_PIXELS = 12
# How many frames of a clip are shown side by side.
MAX_STRIP_FRAMES = 8
# Frames per second of animations: slow enough to follow the motion.
GIF_FPS = 8.0
# Browsers show frames that are shorter than 0.02 s for 0.1 s.
MIN_GIF_HUNDREDTHS = 2


def tile_images(images: np.ndarray, columns: int, scale: int = 1) -> np.ndarray:
    """Arrange [N, H, W, C] uint8 images row by row, separated by a thin border.

    Each pixel becomes a square of `scale` pixels.
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    shape = (rows * (height + 1) + 1, columns * (width + 1) + 1, channels)
    sheet = np.full(shape, BORDER_BRIGHTNESS, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)


def draw_strip(
    clips: np.ndarray, frames: Sequence[int], scale: int = 1, context_frames: int = 0
) -> np.ndarray:
    """Draw [N, T, H, W, C] uint8 clips, one per row, with the given frames side by side.

    A bright line follows the first `context_frames` frames of the clip, which were given.
    """
    chosen = clips[:, list(frames)]
    strip = tile_images(chosen.reshape(-1, *chosen.shape[2:]), len(frames), scale)
    if context_frames:
        left = sum(frame < context_frames for frame in frames) * (clips.shape[3] + 1)
        strip[:, left * scale : (left + 1) * scale] = CONTEXT_BRIGHTNESS
    return strip


def draw_grid(
    examples: np.ndarray, columns: int, scale: int = 1, context_frames: int = 0
) -> np.ndarray:
    """Draw images in rows of `columns`, or clips as one strip of evenly spaced frames each."""
    if examples.ndim == 4:
        return tile_images(examples, columns, scale)
    last = examples.shape[1] - 1
    frames = np.linspace(0, last, min(MAX_STRIP_FRAMES, last + 1)).round().astype(int)
    return draw_strip(examples, frames.tolist(), scale, context_frames)


def draw_pairs(pairs: np.ndarray, title: str, scale: int) -> np.ndarray:
    """Draw originals above their reconstructions, under a title.

    pairs: all originals and then all reconstructions, images or clips. Images stand side by
    side, and each clip has a row of its own.
    """
    count = len(pairs) // 2
    each = 1 if pairs.ndim == 4 else count
    rows = ["original"] * each + ["reconstruction"] * each
    return add_text(draw_grid(pairs, count, scale), title, rows)


def add_text(
    picture: np.ndarray,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> np.ndarray:
    """Write a title above a grid, names beside its rows and names above its columns.

    picture: uint8 [H, W, 1 or 3]. rows, columns: of equal height and width; a name that is
    wider than its column is cut off. The grid's own pixels are not changed.
    """
    font = ImageFont.load_default(TEXT_PIXELS)
    line = TEXT_PIXELS + 6
    left = max((math.ceil(font.getlength(name)) + 8 for name in rows), default=0)
    top = line * (1 + bool(columns))
    width = max(left + picture.shape[1], math.ceil(font.getlength(title)) + 8)
    mode = "L" if picture.shape[-1] == 1 else "RGB"
    sheet = Image.new(mode, (width, top + picture.shape[0]), "white")
    sheet.paste(to_pil(picture), (left, top))
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), title, "black", font)
    for i, name in enumerate(rows):
        middle = top + (i + 0.5) * picture.shape[0] / len(rows)
        draw.text((4, middle), name, "black", font, anchor="lm")
    cell = picture.shape[1] / max(len(columns), 1)
    for i, name in enumerate(columns):
        while len(name) > 1 and font.getlength(name) > cell - 2:
            name = name[:-1]
        draw.text((left + (i + 0.5) * cell, line + 2), name, "black", font, anchor="ma")
    pixels = np.asarray(sheet)
    return pixels[..., None] if mode == "L" else pixels


def to_pil(image: np.ndarray) -> Image.Image:
    """Return a uint8 image [H, W, 1 or 3] as a PIL image."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def encode_gif(clips: np.ndarray, fps: float, scale: int = 1) -> bytes:
    """Return an endless GIF of [N, T, H, W, 1 or 3] uint8 clips, arranged in a square.

    The format counts time in hundredths of a second and allows 256 colors per frame.
    """
    columns = math.ceil(math.sqrt(len(clips)))
    first, *others = [
        to_pil(tile_images(clips[:, t], columns, scale)) for t in range(clips.shape[1])
    ]
    hundredths = max(MIN_GIF_HUNDREDTHS, round(100.0 / fps))
    content = io.BytesIO()
    first.save(
        content, "GIF", save_all=True, append_images=others,
        duration=10 * hundredths, loop=0,
    )  # fmt: skip
    return content.getvalue()
