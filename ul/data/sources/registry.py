"""The data sources by `data.source.kind`.

To add a source, write a module with a function `make_source(split, shape, *, ...)` and add
a row. The keyword-only arguments are the keys of `data.source`, with their defaults; only
what no default can serve, such as a path, has none.
"""

from collections.abc import Callable
from typing import Any

from ul.data.sources import (
    arrays,
    colored_digits,
    digits,
    folder,
    gaussian,
    imported_captions,
    imported_clips,
    imported_images,
    moving_digits,
    photos,
    tfds,
)

SOURCES: dict[str, Callable[..., Any]] = {
    "arrays": arrays.make_source,
    "colored_digits": colored_digits.make_source,
    "digits": digits.make_source,
    "folder": folder.make_source,
    "gaussian": gaussian.make_source,
    "imported": imported_images.make_source,
    "imported_captions": imported_captions.make_source,
    "imported_video": imported_clips.make_source,
    "moving_digits": moving_digits.make_source,
    "photos": photos.make_source,
    "tfds": tfds.make_source,
}
