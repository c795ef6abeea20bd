"""Shared parts of data sources: types of examples, source classes and image reading.

A source has `len`, `num_classes` and random access by index. Example i is a dict with
`image`, uint8 [H, W, C] or, for a clip, [T, H, W, C], and `label`, an int. Images may be
larger than `data.image_shape`; `transforms.random_crop` cuts them. The argument `split` is
"train" or "eval", and the held-out examples of "eval" never change.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ul.core.errors import DataError

log = logging.getLogger("ul")

Example = dict[str, Any]
Shape = tuple[int, ...]  # [H, W, C] of images, [T, H, W, C] of clips
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# The exceptions that Pillow raises for a file that is not a complete image.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class FunctionSource:
    """A source of `length` examples, of which `get_example(i)` computes the i-th.

    All labels are below `num_classes`.
    """

    def __init__(
        self, length: int, get_example: Callable[[int], Example], num_classes: int
    ):
        self._length, self._get_example = length, get_example
        self.num_classes = num_classes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i) -> Example:
        return self._get_example(int(i))


class SkipUnreadable:
    """A source of image files that replaces an unreadable file by the next readable one.

    Each unreadable file is logged once. The replacement depends on the index alone, so all
    runs get the same examples.

    Raises:
      DataError: when more than `max_bad_fraction` of the files have proved unreadable.
    """

    def __init__(
        self,
        files: Sequence[str],
        get_example: Callable[[int], Example],
        max_bad_fraction: float,
        num_classes: int,
    ):
        self.num_classes = num_classes
        self._files, self._get_example = files, get_example
        self._max_bad_fraction = max_bad_fraction
        self._unreadable: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i) -> Example:
        for candidate in range(int(i), int(i) + len(self)):
            candidate %= len(self)
            try:
                return self._get_example(candidate)
            except UNREADABLE as e:
                self._report(candidate, e)
        raise DataError(
            f"At least one image must be readable; all {len(self)} files are unreadable."
        )

    def _report(self, index: int, error: Exception) -> None:
        with self._lock:
            if index in self._unreadable:
                return
            self._unreadable.add(index)
            count = len(self._unreadable)
        file = self._files[index]
        log.warning(
            "Skipped an unreadable image, %d so far: %s (%s)", count, file, error
        )
        if count > self._max_bad_fraction * len(self):
            raise DataError(
                f"At most a fraction {self._max_bad_fraction} of the images may be "
                f"unreadable; {count} of {len(self)} are, most recently {file}. Repair or "
                "remove these files, or raise data.source.max_bad_fraction."
            ) from error


@contextlib.contextmanager
def open_image(file) -> Iterator[Image.Image]:
    """Open an image, given its path or a file object, without Pillow's warnings."""
    with warnings.catch_warnings():
        # They concern unusual metadata, not pixels.
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            yield image


def resize_and_center_crop(image: Image.Image, shape: Shape) -> np.ndarray:
    """Resize an image until it just covers [H, W, C] and cut out the center, as uint8."""
    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    scale = max(height / image.height, width / image.width)
    size = (
        max(width, round(image.width * scale)),
        max(height, round(image.height * scale)),
    )
    if size != image.size:
        resampling = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BICUBIC
        image = image.resize(size, resampling)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    array = np.asarray(image.crop((left, top, left + width, top + height)))
    return array.reshape(shape)
