"""Imported clips, all of one size: losslessly compressed frames in record shards.

A record is the label and the number of frames (int32, little-endian) and then the frames,
one below the other, in as few WebP files as can hold them, each preceded by its length
(uint32). On five panned photographs, encoded as H.264 of 340x256, 16 frames of 128x128 took
275 KiB, 10 ms to write and 4 ms to read; as PNG files they took 503 KiB, 22 ms and 8 ms.
"""

import functools
import io
import struct

import numpy as np
from etils import epath
from PIL import Image

from ul.core.errors import DataError
from ul.data import image_files
from ul.data.record_shards import ShardStore
from ul.data.sources import imported
from ul.data.sources.base import FunctionSource, Shape

HEADER, LENGTH = struct.Struct("<ii"), struct.Struct("<I")
MAX_HEIGHT = 16383  # pixels of a WebP file


def open_store(path: epath.PathLike) -> ShardStore:
    """Return the import in the directory `path`, which may still have to be written."""
    return ShardStore(
        epath.Path(path), "set of imported clips", "python -m ul import_video"
    )


def pack(label: int, frames: np.ndarray) -> bytes:
    """Return the record of a clip, uint8 [T, H, W, 3]."""
    count, height, width, channels = frames.shape
    record = HEADER.pack(label, count)
    frames_per_file = MAX_HEIGHT // height
    for first in range(0, count, frames_per_file):
        part = frames[first : first + frames_per_file]
        file = io.BytesIO()
        # Above quality 75 WebP looks for matches in the earlier frames. Methods above 0 are
        # slower and give no smaller files on video.
        Image.fromarray(part.reshape(-1, width, channels)).save(
            file, "WEBP", lossless=True, method=0, quality=76
        )
        record += LENGTH.pack(file.tell()) + file.getvalue()
    return record


def unpack(record: bytes, size: int) -> tuple[int, np.ndarray]:
    """Return the label and the frames, uint8 [T, size, size, 3], of a record.

    Raises:
      struct.error, or one of UNREADABLE: the record is damaged.
    """
    label, count = HEADER.unpack_from(record)
    offset, parts = HEADER.size, []
    while offset < len(record):
        (length,) = LENGTH.unpack_from(record, offset)
        offset += LENGTH.size
        file = io.BytesIO(record[offset : offset + length])
        with image_files.open_image(file, ("WEBP",)) as image:
            parts.append(np.asarray(image))
        offset += length
    return label, np.concatenate(parts).reshape(count, size, size, 3)


def make_source(split: str, shape: Shape, *, path: str) -> FunctionSource:
    """Return a split that `ul import_video` wrote; `shape` may ask for fewer frames.

    Raises:
      DataError: there is no complete import, a shard is damaged, or the clips have another
        size or fewer frames.
    """
    manifest, records = imported.open_split(open_store(path), split, {"frames", "fps"})
    size, num_frames = manifest["size"], manifest["frames"]
    stored_shape = (num_frames, size, size, 3)
    if len(shape) != 4 or shape[1:] != stored_shape[1:] or shape[0] > num_frames:
        raise DataError(
            f"data.image_shape must be {stored_shape} or fewer frames, the size of the clips "
            f"in data.source.path {path}; got {shape}. Change it, or import the clips again "
            "with another --frames or --size."
        )
    unpack_sized = functools.partial(unpack, size=size)
    return imported.record_source(records, unpack_sized, manifest, split)
