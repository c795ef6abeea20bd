"""Every kind of image file is read as a viewer shows it, or refused by name."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lib.breaks import Break
from tests.lib.commands import ROOT
from ul.data import image_files

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)

BREAKS = (
    Break(
        "photographs of phones lie on their side",
        "ul/data/image_files.py",
        "upright = image if transpose is None else image.transpose(transpose)",
        "upright = image",
        "test_images_are_turned_as_their_orientation_says",
    ),
    Break(
        "transparent pixels become black",
        "ul/data/image_files.py",
        'white = Image.new("RGBA", image.size, "white")',
        'white = Image.new("RGBA", image.size, "black")',
        "test_transparent_pixels_are_shown_on_white",
    ),
)


def encode(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def read(file, channels: int = 3) -> np.ndarray:
    return np.asarray(image_files.read_image(file, channels))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encode(Image.fromarray(NOISE), kind, **options)
    np.testing.assert_array_equal(read(file), NOISE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_orientation_says(orientation):
    """The eight orientations by their definition: where row 0 and column 0 are shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {
        1: NOISE,
        2: NOISE[:, ::-1],
        3: NOISE[::-1, ::-1],
        4: NOISE[::-1],
        5: NOISE.swapaxes(0, 1),
        6: np.rot90(NOISE, 1),
        7: NOISE[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(NOISE, -1),
    }[orientation]
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = Image.fromarray(np.ascontiguousarray(stored))
        file = encode(image, kind, exif=exif, **options)
        np.testing.assert_array_equal(read(file), NOISE)


def test_broken_metadata_do_not_matter():
    exif = Image.Exif()
    exif[0x0112] = 99
    np.testing.assert_array_equal(
        read(encode(Image.fromarray(NOISE), exif=exif)), NOISE
    )
    garbage = encode(Image.fromarray(NOISE), exif=b"Exif\0\0MM\0*garbage")
    np.testing.assert_array_equal(read(garbage), NOISE)


def test_transparent_pixels_are_shown_on_white():
    alpha = np.zeros((12, 20), np.uint8)
    alpha[:, 10:] = 255
    rgba = Image.fromarray(np.dstack([NOISE, alpha]))
    expected = NOISE.copy()
    expected[:, :10] = 255
    np.testing.assert_array_equal(read(encode(rgba)), expected)
    gray = Image.fromarray(np.dstack([NOISE[..., 0], alpha]), "LA")
    assert (read(encode(gray), 1)[:, :10] == 255).all()
    palette = Image.fromarray(NOISE[..., 0] % 4).convert("P")
    shown = read(encode(palette, transparency=0))
    hidden = np.asarray(palette) == 0
    assert hidden.any() and (shown[hidden] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_of_eight_bits_are_converted(channels):
    for mode in ("1", "L", "P", "RGB", "CMYK"):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        image = Image.fromarray(NOISE).convert(mode)
        shape = (12, 20) if channels == 1 else (12, 20, 3)
        assert read(encode(image, kind), channels).shape == shape


def png_with_16_bits(color_type: int) -> io.BytesIO:
    """A PNG of 1x1 pixels with 16 bits per channel, which Pillow cannot write itself."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 1, 1, 16, color_type, 0, 0, 0)
    pixels = zlib.compress(b"\0" + b"\x12\x34" * channels)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("color_type", [0, 2, 4, 6])
def test_16_bits_per_channel_are_refused(color_type):
    with pytest.raises(ValueError, match="does not have 8 bits per channel"):
        read(png_with_16_bits(color_type))


def test_other_formats_are_refused_whatever_their_suffix(tmp_path):
    """Pillow would start Ghostscript for PostScript that is called x.png."""
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ValueError, match="cannot identify"):
        read(str(path))
    Image.fromarray(NOISE).save(path, "TIFF")
    with pytest.raises(ValueError, match="cannot identify"):
        read(str(path))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded():
    """The limit holds although Pillow's own would let it pass."""
    side = 2**13 + 64
    file = encode(Image.new("1", (side, side)))
    with pytest.raises(ValueError, match=f"its {side}x{side} pixels are more than"):
        read(file)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ValueError, match="not a regular file"):
        read(str(tmp_path / "x.png"))


def test_no_other_module_opens_images():
    """One opener passes the allowed formats, checks the size and turns the image."""
    files = [*Path(ROOT, "ul").rglob("*.py"), *Path(ROOT, "launch").rglob("*.py")]
    opening = [
        str(file.relative_to(ROOT))
        for file in files
        if re.search(r"\bImage\.open\(", file.read_text())
    ]
    assert opening == ["ul/data/image_files.py"]


def test_truncated_files_are_unreadable():
    content = encode(Image.fromarray(NOISE), "JPEG").getvalue()
    for length in (0, 10, len(content) // 2):
        with pytest.raises(image_files.UNREADABLE):
            read(io.BytesIO(content[:length]))
