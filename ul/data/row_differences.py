"""Images as differences of rows, which compress well and are read faster than PNG files.

An encoded image is HEADER (magic, height, width, channels) and uint8 values: the first row,
and the difference of each other row to the one above it, modulo 256, as PNG's filter "Up".
The record shard that holds it is compressed by Zstandard, and its reader decompresses
without holding Python's lock. Sizes and speeds: experiments/RESULTS.md.
"""

import struct

import numpy as np

HEADER = struct.Struct("<4sHHH")
MAGIC = b"ULRD"


def encode(image: np.ndarray) -> bytes:
    """Return an image, uint8 [H, W, C] with sides below 65,536, in this encoding."""
    rows = image.reshape(image.shape[0], -1)
    differences = rows.copy()
    differences[1:] -= rows[:-1]
    return HEADER.pack(MAGIC, *image.shape) + differences.tobytes()


def is_encoded(content: bytes | memoryview) -> bool:
    """Return whether the content begins like an image in this encoding."""
    return bytes(content[: len(MAGIC)]) == MAGIC


def decode(content: bytes | memoryview) -> np.ndarray:
    """Return the image, uint8 [H, W, C].

    Raises:
      struct.error, ValueError: the content is damaged.
    """
    magic, height, width, channels = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise ValueError(f"it does not begin with {MAGIC!r}")
    differences = np.frombuffer(content, np.uint8, offset=HEADER.size)
    rows = differences.reshape(height, width * channels).copy()
    for row in range(1, height):  # five times as fast as np.add.accumulate
        rows[row] += rows[row - 1]
    return rows.reshape(height, width, channels)
