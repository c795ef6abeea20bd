"""What data.source.kind may be."""

from collections.abc import Callable
from typing import Any

from ul.data import captions, images, moving, sources, texts, videos

SOURCES: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "gaussian": sources.gaussian,
    "captioned_digits": captions.captioned_digits,
    "photos": sources.photos,
    "folder": sources.folder,
    "imported": images.items,
    "imported_video": videos.items,
    "moving_digits": moving.moving_digits,
    "imported_captions": texts.imported_captions,
    "tfds": sources.tfds,
    "arrays": sources.arrays,
}


def without_text(source) -> sources.Items:
    """Images and labels alone of a source that has captions."""
    return sources.Items(len(source), source.picture, source.num_classes)


class WithText:
    """Latents, or what else stands for the images of a source, with its captions.

    There may be several for an image: item i is of image i mod the images there are.
    """

    def __init__(self, items, source):
        self._items, self._source = items, source

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i) -> sources.Example:
        i = int(i)
        return self._items[i] | self._source.told(i % len(self._source))
