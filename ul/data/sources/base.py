"""Shared parts of data sources: types of examples, source classes and cropping.

A source has `len`, `num_classes` and random access by index. Example i is a dict with
`image`, uint8 [H, W, C] or, for a clip, [T, H, W, C], and `label`, an int. Images may be
larger than `data.image_shape`; `transforms.random_crop` cuts them. The argument `split` is
"train" or "eval", and the held-out examples of "eval" never change.
"""

import concurrent.futures
import dataclasses
import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ul.core import storage
from ul.core.errors import DataError
from ul.core.files import display_name, read_error
from ul.data.image_files import UNREADABLE

log = logging.getLogger("ul")

Example = dict[str, Any]
Shape = tuple[int, ...]  # [H, W, C] of images, [T, H, W, C] of clips


@dataclasses.dataclass(frozen=True)
class SourceReport:
    """A summary of the files of a source, for the log and for config.json.

    classes: the number of examples of each class of the split by name; None if it is
      unknown. skipped: the number of skipped files by reason, of both splits.
    digest: digest of the names and sizes of all files of the split; "" without files.
    """

    classes: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    digest: str = ""


class FunctionSource:
    """A source of `length` examples, of which `get_example(i)` computes the i-th.

    All labels are below `num_classes`.
    """

    def __init__(
        self,
        length: int,
        get_example: Callable[[int], Example],
        num_classes: int,
        report: SourceReport | None = None,
    ):
        self._length, self._get_example = length, get_example
        self.num_classes, self.report = num_classes, report or SourceReport()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i) -> Example:
        return self._get_example(int(i))


class SkipUnreadable:
    """A source of image files that replaces an unreadable file by the next readable one.

    Each unreadable file is logged once. The replacement depends on the index alone, so all
    runs get the same examples.

    Raises:
      DataError: when more than `max_unreadable` files have proved unreadable.
      StorageError: the storage fails, and the file may be intact.
    """

    def __init__(
        self,
        names: Sequence[str],
        get_example: Callable[[int], Example],
        num_classes: int,
        *,
        max_unreadable: int,
        report: SourceReport,
    ):
        self.num_classes, self.report = num_classes, report
        self._names, self._get_example = names, get_example
        self._max_unreadable = max_unreadable
        self._unreadable: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i) -> Example:
        for candidate in range(int(i), int(i) + len(self)):
            candidate %= len(self)
            try:
                return storage.retry(
                    functools.partial(self._get_example, candidate),
                    f"reading {display_name(self._names[candidate])}",
                )
            except UNREADABLE as e:
                # Another run would read the file, and then have other examples.
                if storage.may_pass(e):
                    raise read_error(self._names[candidate], e) from e
                self._report(candidate, e)
        raise DataError(
            f"At least one image must be readable; all {len(self)} files are unreadable."
        )

    def verify(self, count: int, threads: int) -> None:
        """Read the first `count` examples with several threads and a progress bar.

        Raises:
          DataError: too many files are unreadable.
        """
        with concurrent.futures.ThreadPoolExecutor(threads) as executor:
            bar = tqdm(
                executor.map(self.__getitem__, range(count)),
                total=count,
                desc="checking held-out images",
                unit="image",
                delay=2.0,
                dynamic_ncols=True,
            )
            for _ in bar:
                pass

    def _report(self, index: int, error: Exception) -> None:
        with self._lock:
            if index in self._unreadable:
                return
            self._unreadable.add(index)
            count = len(self._unreadable)
        file = display_name(self._names[index])
        log.warning(
            "Skipped an unreadable image, %d so far: %s (%s)", count, file, error
        )
        if count > self._max_unreadable:
            raise DataError(
                f"At most {self._max_unreadable} images may be unreadable "
                f"(data.source.max_bad_fraction); {count} are, most recently {file}. Repair "
                "or remove these files, or raise data.source.max_bad_fraction."
            ) from error


def resize_and_center_crop(image: Image.Image, shape: Shape) -> np.ndarray:
    """Resize an RGB or gray image until it just covers [H, W, C] and cut out the center.

    Returns the center as uint8.
    """
    height, width, _ = shape
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
