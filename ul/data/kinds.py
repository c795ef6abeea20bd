"""What data.source.kind may be."""

from collections.abc import Callable
from typing import Any

from ul.data import captions, images, sources, texts

SOURCES: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "gaussian": sources.gaussian,
    "captioned_digits": captions.captioned_digits,
    "photos": sources.photos,
    "folder": sources.folder,
    "imported": images.imported,
    "imported_captions": texts.imported_captions,
    "tfds": sources.tfds,
    "arrays": sources.arrays,
}


def without_text(source) -> sources.Items:
    """Images and labels alone of a source that has captions."""

    def get(i):
        found = source[i]
        return {"image": found["image"], "label": found["label"]}

    return sources.Items(len(source), get, source.num_classes)
