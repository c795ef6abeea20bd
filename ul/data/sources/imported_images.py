"""Imported images, all of one size: squares in record shards.

A record is the label (int32, little-endian) and the image (data/row_differences.py). In the
shards of older versions the image is a PNG file, which is read as before.
"""

import io
import json
import struct

import numpy as np
import PIL
from etils import epath
from PIL import Image

from ul.core import files
from ul.core.errors import DataError
from ul.data import image_files, record_shards, row_differences
from ul.data.record_shards import ShardStore
from ul.data.sources import imported
from ul.data.sources.base import FunctionSource, Shape

HEADER = struct.Struct("<i")
# The longest ratio of an image's sides. The center square of a longer image shows nothing.
MAX_ASPECT_RATIO = 64


def open_store(path: epath.PathLike) -> ShardStore:
    """Return the import in the directory `path`, which may still have to be written."""
    return ShardStore(
        epath.Path(path), "set of imported images", "python -m ul import_images"
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the pixels of an import.

    Pillow 13, for example, resizes differently from Pillow 11.
    """
    return {"pillow": PIL.__version__}


def center_crop_square(image: Image.Image, size: int) -> Image.Image:
    """Return the center square of an image with `size` pixels a side, as ADM and EDM2 do.

    The image is halved by averaging (box) while its shorter side is at least twice `size`,
    then resized bicubically, then cropped (`center_crop_arr` of Dhariwal and Nichol 2021,
    arXiv 2105.05233).

    Raises:
      ValueError: one side is more than MAX_ASPECT_RATIO times the other.
    """
    while min(image.size) >= 2 * size:
        half = image.width // 2, image.height // 2
        image = image.resize(half, Image.Resampling.BOX)
    scale = size / min(image.size)
    if max(image.size) * scale > MAX_ASPECT_RATIO * size:
        raise ValueError(
            f"its aspect ratio ({image.width}x{image.height}) is above {MAX_ASPECT_RATIO}"
        )
    resized = round(image.width * scale), round(image.height * scale)
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pack(label: int, file: bytes, size: int, *, as_png: bool = False) -> bytes:
    """Return the record of an image file as an RGB square (see data/image_files.py).

    as_png: as older versions wrote records, to continue or repair their imports.

    Raises:
      One of UNREADABLE: the file is not a complete image of 8 bits per channel.
    """
    image = image_files.read_image(io.BytesIO(file), channels=3)
    square = center_crop_square(image, size)
    if not as_png:
        return HEADER.pack(label) + row_differences.encode(np.asarray(square))
    content = io.BytesIO()
    square.save(content, "PNG", compress_level=1)
    return HEADER.pack(label) + content.getvalue()


def unpack(record: bytes) -> tuple[int, np.ndarray]:
    """Return the label and the image, uint8 [size, size, 3], of a record.

    Raises:
      struct.error, or one of UNREADABLE: the record is damaged.
    """
    (label,) = HEADER.unpack_from(record)
    content = memoryview(record)[HEADER.size :]
    if row_differences.is_encoded(content):
        return label, row_differences.decode(content)
    file = io.BytesIO(content)
    with image_files.open_image(file, ("PNG",)) as image:
        return label, np.asarray(image)


def make_source(split: str, shape: Shape, *, path: str) -> FunctionSource:
    """Return a split that `ul import_images` wrote.

    Raises:
      DataError: there is no complete import, a shard is damaged, or the images have another
        size.
    """
    manifest, records = imported.open_split(open_store(path), split, set())
    stored_shape = (manifest["size"], manifest["size"], 3)
    if shape != stored_shape:
        raise DataError(
            f"data.image_shape must be {stored_shape}, the size of the images in "
            f"data.source.path {path}; got {shape}. Change it, or import the images again "
            f"with --size={shape[0]}."
        )
    return imported.record_source(records, unpack, manifest, split)


def load_names(store: ShardStore, manifest: dict) -> dict[str, list[str]]:
    """Return the original file name of each image of each split, in order.

    Raises:
      DataError: the images were imported before names were kept, or a summary is damaged.
    """
    names: dict[str, list[str]] = {}
    for split, about in manifest["splits"].items():
        names[split] = []
        for shard in about["shards"]:
            stem = shard["file"].removesuffix(record_shards.SUFFIX)
            names[split] += _shard_names(store, store.path / f"{stem}.json")
        if len(names[split]) != about["count"]:
            raise DataError(
                f"{store.path} must have one name for each of its {about['count']} {split} "
                f"images; found {len(names[split])}. {store.rerun_to('repair it')}"
            )
    return names


def _shard_names(store: ShardStore, path: epath.Path) -> list[str]:
    try:
        return json.loads(files.read_text(path))["names"]
    except KeyError as e:
        raise DataError(
            f"{store.path} was imported by an older version, which did not keep the names of "
            "the images. Import them again into another directory."
        ) from e
    except (OSError, ValueError) as e:
        raise DataError(
            f"{path} cannot be read ({e}). {store.rerun_to('repair it')}"
        ) from e
