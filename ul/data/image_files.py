"""Open and decode image files: the one reader of folders, imports, TFDS and pictures.

The format is one of FORMATS and has to be recognizable from the content; Pillow would try
all the formats it knows, and some of them start other programs. Images are turned as their
EXIF orientation says. Transparent pixels are shown on white. Images with more than 8 bits
per channel and images of more than MAX_PIXELS are refused.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence

from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Downloaded files often have the suffix of another of these formats.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# About 200 MB as RGB. A small file can declare billions of pixels.
MAX_PIXELS = 2**26
# What the functions here raise for a file that is no complete image, or cannot be read.
UNREADABLE = (OSError, ValueError)

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def open_image(file, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Open an image, given its path or a file object, and yield it as it is stored.

    Raises:
      ValueError: it has none of the formats, or too many pixels; also for what is raised
        while it is decoded in the block.
      OSError: the storage fails.
    """
    if isinstance(file, str) and os.path.exists(file) and not os.path.isfile(file):
        raise ValueError(f"{file} is not a regular file")  # Opening a pipe would wait.
    with _decoder_errors(), warnings.catch_warnings():
        # They concern unusual metadata and sizes, which are checked below.
        warnings.simplefilter("ignore")
        with Image.open(file, formats=tuple(formats)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"its {image.width}x{image.height} pixels are more than {MAX_PIXELS}"
                )
            yield image


@contextlib.contextmanager
def _decoder_errors() -> Iterator[None]:
    """Raise a ValueError for what Pillow raises at a broken file, which may be anything.

    Its OSErrors have no error number. Those of the storage, which have one, pass.
    """
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except OSError as e:
        if e.errno is not None:
            raise
        raise ValueError(str(e)) from e
    except Exception as e:
        raise ValueError(f"{type(e).__name__}: {e}") from e


def read_image(file, channels: int) -> Image.Image:
    """Decode an image upright, as RGB for 3 channels or as gray for 1.

    Raises:
      ValueError: the file is not a complete image of 8 bits per channel.
      OSError: the storage fails.
    """
    with open_image(file) as image:
        _check_bits(image)
        image.load()
        transpose = _UPRIGHT.get(_exif_orientation(image))
        upright = image if transpose is None else image.transpose(transpose)
        return convert(upright, channels)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of 8 bits per channel as RGB or gray, transparency on white.

    Raises:
      ValueError: it has another number of bits.
    """
    _check_bits(image)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, opaque)
    return image.convert("L" if channels == 1 else "RGB")


def _check_bits(image: Image.Image) -> None:
    # Pillow's conversion would clip such values to white, or drop the lower bits of colors.
    # The PNG decoder is told of 16 bits by a raw mode such as RGB;16B.
    stored = image.mode + "".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    if image.mode.startswith(("I", "F")) or ";16B" in stored:
        raise ValueError(f"mode {image.mode} does not have 8 bits per channel")


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 for none and for one that is invalid."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except (
        Exception
    ):  # Broken metadata raise many kinds of errors; the pixels are intact.
        return 1
    return orientation if isinstance(orientation, int) else 1
