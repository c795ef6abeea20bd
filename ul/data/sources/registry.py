"""What data.source.kind may be."""

from collections.abc import Callable
from typing import Any

from ul.data.sources import (
    basic,
    colored_digits,
    imported_captions,
    imported_clips,
    imported_images,
    moving_digits,
)

SOURCES: dict[str, Callable[..., Any]] = {
    "digits": basic.digits,
    "gaussian": basic.gaussian,
    "colored_digits": colored_digits.colored_digits,
    "photos": basic.photos,
    "folder": basic.folder,
    "imported": imported_images.items,
    "imported_video": imported_clips.items,
    "moving_digits": moving_digits.moving_digits,
    "imported_captions": imported_captions.imported_captions,
    "tfds": basic.tfds,
    "arrays": basic.arrays,
}


def without_text(source) -> basic.Items:
    """Images and labels alone of a source that has captions."""
    return basic.Items(len(source), source.picture, source.num_classes)


class WithText:
    """Latents, or what else stands for the images of a source, with its captions.

    There may be several for an image: item i is of image i mod the images there are.
    """

    def __init__(self, items, source):
        self._items, self._source = items, source

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i) -> basic.Example:
        i = int(i)
        return self._items[i] | self._source.told(i % len(self._source))
