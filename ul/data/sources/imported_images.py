"""Images of one size as they are imported: square PNGs in shards (shards.py).

A record is the label (int32, little-endian) and the file.
"""

import io
import json
import struct
import warnings

import numpy as np
import PIL
from etils import epath
from PIL import Image

from ul.core.errors import DataError
from ul.data import record_shards
from ul.data.record_shards import Store
from ul.data.sources import imported
from ul.data.sources.basic import Items, Shape

HEAD = struct.Struct("<i")
# Sides of an image, the longer by the shorter: beyond, its square shows nothing of it.
LONGEST = 64
# What a file that is no whole image raises in Pillow.
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def store(where: epath.PathLike) -> Store:
    """The imported images at `where`, there or to be written."""
    return Store(epath.Path(where), "set of imported images", "launch.import_images")


def made_with() -> dict[str, str]:
    """The libraries that decide pixels: Pillow 13 resizes other than 11 does."""
    return {"pillow": PIL.__version__}


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The square in the middle, `size` pixels a side: what ADM and EDM2 train on.

    Halved by averaging (box) while the shorter side is at least twice as long as wanted,
    then bicubic to the wanted length, then cut (Dhariwal and Nichol 2021,
    arXiv 2105.05233, their `center_crop_arr`).

    Raises:
      ValueError: one side is more than LONGEST times the other.
    """
    while min(image.size) >= 2 * size:
        half = image.width // 2, image.height // 2
        image = image.resize(half, Image.Resampling.BOX)
    scale = size / min(image.size)
    if max(image.size) * scale > LONGEST * size:
        raise ValueError(f"{image.width}x{image.height} is a strip, not an image")
    fitted = round(image.width * scale), round(image.height * scale)
    image = image.resize(fitted, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pack(label: int, file: bytes, size: int) -> bytes:
    """The record of an image file of any kind that Pillow reads: RGB, cut to a square.

    As the reference does: CMYK and grey become RGB, an orientation in EXIF is not followed.

    Raises:
      One of BROKEN: it is no image, or not whole.
    """
    with warnings.catch_warnings():
        # Pillow's remarks on odd metadata are not about pixels.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(file)) as image:
            if image.mode.startswith(("I", "F")):  # they would become white
                raise ValueError(f"its mode is {image.mode}, not 8 bits a channel")
            square = centre_square(image.convert("RGB"), size)
    # Level 1: on four photographs 8 % larger than level 6, six times as fast to write.
    content = io.BytesIO()
    square.save(content, "PNG", compress_level=1)
    return HEAD.pack(label) + content.getvalue()


def items(split: str, shape: Shape, *, path: str) -> Items:
    """A split that launch.import_images wrote.

    Raises:
      DataError: none, one half written or with damaged shards, or of another size.
    """
    manifest, records = imported.opened(store(path), split, set())
    size = manifest["size"]
    if shape != (size, size, 3):
        raise DataError(
            f"data.source.path {path} holds images of {size}x{size}, RGB, but "
            f"data.image_shape is {list(shape)}; set it to {[size, size, 3]}, or import "
            f"again with --size={shape[0]}"
        )

    def get(i):
        record = records[i]
        try:
            (label,) = HEAD.unpack_from(record)
            with Image.open(io.BytesIO(record[HEAD.size :])) as image:
                pixels = np.asarray(image)
        except (struct.error, *BROKEN) as e:
            raise records.damaged(i, f"is no image ({e})") from e
        return {"image": pixels, "label": label}

    return Items(len(records), get, len(manifest["classes"]))


def names(data: Store, manifest: dict) -> dict[str, list[str]]:
    """What each image of each split was called where it was imported from, in order.

    Raises:
      DataError: it was imported before names were kept, or a record is damaged.
    """
    found: dict[str, list[str]] = {}
    for split, about in manifest["splits"].items():
        found[split] = []
        for shard in about["shards"]:
            path = (
                data.path / f"{shard['file'].removesuffix(record_shards.SUFFIX)}.json"
            )
            try:
                found[split] += json.loads(path.read_text())["names"]
            except KeyError as e:
                raise DataError(
                    f"{data.path} was imported before names of images were kept; import "
                    "it again into another directory"
                ) from e
            except (OSError, ValueError) as e:
                raise DataError(f"{path} cannot be read ({e}); {data.again}") from e
        if len(found[split]) != about["count"]:
            raise DataError(
                f"{data.path} has {about['count']} {split} images but "
                f"{len(found[split])} names; {data.again}"
            )
    return found
