"""Image files as the world has them, with what a reader must see in each.

The pixels come from numpy, not from a decoder: a reader of these files is compared with
what was written into them.
"""

import dataclasses
import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 8
# Names that shells, URLs, file systems and people make difficult; {} is a number.
NAMES = (
    "{}", "a b {}", "-{}", "ü {} 猫", "it's {}", "{}%20", "$({})", "{};ls", "a\nb{}",
    "{}.png", "{}.jpg.png", "#{}", "[{}]*", "x" * 200 + "{}", "{}\\n", "\u202e{}",
)  # fmt: skip
SUFFIXES = (".png", ".PNG", ".jpg", ".JPeG", ".jpeg", ".webp", ".bmp")
ORIENTED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@dataclasses.dataclass(frozen=True)
class Generated:
    """A file. pixels: uint8 [8, 8, 3], or None if a reader must reject it.

    tolerance: in levels; None if only the kind of the outcome is known, not the pixels.
    may_be_rejected: also allowed.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    tolerance: int | None = 0
    may_be_rejected: bool = False


def _encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _rgb(rng):
    return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def lossless(rng):
    format, options = [
        ("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True, "exact": True}),
    ][rng.integers(3)]  # fmt: skip
    pixels = _rgb(rng)
    return _encode(Image.fromarray(pixels), format, **options), pixels, {}


def gray(rng):
    pixels = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
    if rng.random() < 0.5:
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(pixels).convert("1", dither=Image.Dither.NONE)
    else:
        image = Image.fromarray(pixels)
    format = ("PNG", "BMP", "GIF")[rng.integers(3)]
    return _encode(image, format), np.repeat(pixels[..., None], 3, -1), {}


def transparent(rng):
    channels = (2, 4)[rng.integers(2)]
    stored = rng.integers(0, 256, (SIDE, SIDE, channels), np.uint8)
    color, alpha = stored[..., :-1].astype(float), stored[..., -1:] / 255.0
    pixels = np.broadcast_to(color * alpha + 255.0 * (1 - alpha), (SIDE, SIDE, 3))
    image = Image.fromarray(stored, "LA" if channels == 2 else "RGBA")
    return _encode(image, "PNG"), np.round(pixels), {"tolerance": 1}


def palette(rng):
    colors = rng.integers(0, 256, (256, 3), np.uint8)
    index = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colors.tobytes())
    pixels, options = colors[index], {}
    if rng.random() < 0.5:
        clear = int(index[0, 0])
        options["transparency"] = clear
        pixels = np.where((index == clear)[..., None], 255, pixels)
    return _encode(image, ("PNG", "GIF")[rng.integers(2)], **options), pixels, {}


def oriented(rng):
    number = int(rng.choice([*range(1, 9), 0, 9, 77]))
    exif = Image.Exif()
    exif[0x0112] = number
    pixels = _rgb(rng)
    format, options = (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}))[
        rng.integers(2)
    ]
    content = _encode(Image.fromarray(pixels), format, exif=exif, **options)
    return content, ORIENTED.get(number, ORIENTED[1])(pixels), {}


def animated(rng):
    frames = [_rgb(rng) for _ in range(3)]
    first, *rest = map(Image.fromarray, frames)
    options = {"save_all": True, "append_images": rest}
    if rng.random() < 0.5:
        return _encode(first, "PNG", **options), frames[0], {}
    return _encode(first, "WEBP", lossless=True, exact=True, **options), frames[0], {}


def lossy(rng):
    smooth = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    mode = ("RGB", "L", "CMYK", "YCbCr")[rng.integers(4)]
    content = _encode(Image.fromarray(smooth).convert(mode), "JPEG", quality=95)
    if mode == "L":
        smooth = np.asarray(Image.fromarray(smooth).convert("L").convert("RGB"))
    return content, smooth, {"tolerance": 12}


def other_size(rng):
    sides = [int(rng.choice([1, 2, 7, 9, 64, 300])) for _ in range(2)]
    pixels = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (*sides, 3))
    whole = np.broadcast_to(pixels[0, 0], (SIDE, SIDE, 3))
    # Importers refuse what is too elongated.
    long = max(sides) > 64 * min(sides)
    content = _encode(Image.fromarray(np.ascontiguousarray(pixels)), "PNG")
    return content, whole, {"may_be_rejected": long}


def _chunk(kind, data):
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def _png(width, height, bits, color, data):
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sixteen_bits(rng):
    color, channels = ((0, 1), (2, 3), (6, 4))[rng.integers(3)]
    row = b"\0" + rng.bytes(2 * SIDE * channels)
    return _png(SIDE, SIDE, 16, color, zlib.compress(row * SIDE)), None, {}


def bomb(rng):
    side = int(rng.choice([9000, 60000, 2**31 - 1]))
    return _png(side, side, 8, 2, zlib.compress(bytes(99999))), None, {}


def truncated(rng):
    format = ("PNG", "JPEG", "BMP", "WEBP")[rng.integers(4)]
    whole = _encode(Image.fromarray(_rgb(rng)), format)
    with Image.open(io.BytesIO(whole), formats=(format,)) as image:
        pixels = np.asarray(image.convert("RGB"))
    # A reader may accept the file if all pixels are there, but it must not invent any.
    return whole[: rng.integers(0, len(whole))], pixels, {"may_be_rejected": True}


def flipped(rng):
    """A bit of a PNG is flipped: its checksums find that, or it changed nothing."""
    pixels = _rgb(rng)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "made by a camera")
    whole = bytearray(_encode(Image.fromarray(pixels), "PNG", pnginfo=text))
    position = int(rng.integers(8 * len(whole)))
    whole[position // 8] ^= 1 << position % 8
    return bytes(whole), pixels, {"may_be_rejected": True}


def garbled(rng):
    """Bits of other formats are flipped, which may go unnoticed."""
    format = ("JPEG", "GIF", "WEBP", "BMP")[rng.integers(4)]
    whole = bytearray(_encode(Image.fromarray(_rgb(rng)), format))
    for position in rng.integers(len(whole), size=rng.integers(1, 20)):
        whole[position] = rng.integers(256)
    return bytes(whole), _rgb(rng), {"may_be_rejected": True, "tolerance": None}


def no_image(rng):
    return (
        (
            b"",
            rng.bytes(int(rng.integers(1, 3000))),
            b"<!DOCTYPE html><h1>404</h1>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
            _encode(Image.fromarray(_rgb(rng)), "TIFF"),
            _encode(Image.fromarray(_rgb(rng)), "ICO"),
            b"P6 8 8 255\n" + rng.bytes(192),
            b'{"image": null}',
        )[rng.integers(8)],
        None,
        {},
    )


KINDS = (
    lossless, gray, transparent, palette, oriented, animated, lossy, other_size,
    sixteen_bits, bomb, truncated, flipped, garbled, no_image,
)  # fmt: skip


def generate(count: int, seed: int) -> list[Generated]:
    """Return files of all kinds, in two class folders."""
    rng = np.random.default_rng(seed)
    generated = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        content, pixels, more = kind(rng)
        stem = NAMES[rng.integers(len(NAMES))].format(f"{kind.__name__}{i}")
        suffix = SUFFIXES[rng.integers(len(SUFFIXES))]
        name = f"{('a', 'b')[i % 2]}/{stem}{suffix}"
        generated.append(Generated(name, content, pixels, **more))
    return generated
