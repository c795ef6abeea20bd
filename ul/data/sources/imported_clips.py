"""Clips of one size as they are imported: lossless frames in shards (shards.py).

A record is the label and the number of frames (int32, little-endian), then the frames one
below the other, as WebP files of as many as one can hold, each after its length (uint32).
On five panned photographs as H.264 of 340x256, 16 frames of 128x128 took 275 KiB, 10 ms to
write and 4 ms to read, one below the other as PNG 503 KiB, 22 ms and 8 ms.
"""

import io
import struct

import numpy as np
from etils import epath
from PIL import Image

from ul.core.errors import DataError
from ul.data.record_shards import Store
from ul.data.sources import imported
from ul.data.sources.basic import Items, Shape
from ul.data.sources.imported_images import BROKEN

HEAD, LENGTH = struct.Struct("<ii"), struct.Struct("<I")
TALLEST = 16383  # pixels of a WebP file


def store(where: epath.PathLike) -> Store:
    """The imported clips at `where`, there or to be written."""
    return Store(epath.Path(where), "set of imported clips", "launch.import_video")


def pack(label: int, frames: np.ndarray) -> bytes:
    """The record of a clip, uint8 [T, H, W, 3]."""
    count, height, width, channels = frames.shape
    record = HEAD.pack(label, count)
    most = TALLEST // height
    for first in range(0, count, most):
        tall = frames[first : first + most].reshape(-1, width, channels)
        file = io.BytesIO()
        # Above 75 a match is sought in the frames before; methods above 0 are slower, and
        # on video not smaller.
        Image.fromarray(tall).save(file, "WEBP", lossless=True, method=0, quality=76)
        record += LENGTH.pack(file.tell()) + file.getvalue()
    return record


def unpack(record: bytes, size: int) -> tuple[int, np.ndarray]:
    """Label and frames [T, size, size, 3].

    Raises:
      struct.error, or one of BROKEN: it is no record.
    """
    label, count = HEAD.unpack_from(record)
    at, parts = HEAD.size, []
    while at < len(record):
        (length,) = LENGTH.unpack_from(record, at)
        at += LENGTH.size
        with Image.open(io.BytesIO(record[at : at + length])) as image:
            parts.append(np.asarray(image))
        at += length
    return label, np.concatenate(parts).reshape(count, size, size, 3)


def items(split: str, shape: Shape, *, path: str) -> Items:
    """A split that launch.import_video wrote; clips may be longer than `shape` asks for.

    Raises:
      DataError: none, one half written or with damaged shards, of another size or shorter.
    """
    manifest, records = imported.opened(store(path), split, {"frames", "fps"})
    size, frames = manifest["size"], manifest["frames"]
    if len(shape) != 4 or tuple(shape[1:]) != (size, size, 3) or shape[0] > frames:
        raise DataError(
            f"data.source.path {path} holds clips of {frames} frames of {size}x{size}, RGB, "
            f"but data.image_shape is {list(shape)}; set it to {[frames, size, size, 3]} or "
            "fewer frames, or import again with other --frames and --size"
        )

    def get(i):
        record = records[i]
        try:
            label, pixels = unpack(record, size)
        except (struct.error, *BROKEN) as e:
            raise records.damaged(i, f"is no clip ({e})") from e
        return {"image": pixels, "label": label}

    return Items(len(records), get, len(manifest["classes"]))
