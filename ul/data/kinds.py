"""What data.source.kind may be."""

from collections.abc import Callable
from typing import Any

from ul.data import images, moving, sources, videos

SOURCES: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "gaussian": sources.gaussian,
    "photos": sources.photos,
    "folder": sources.folder,
    "imported": images.items,
    "imported_video": videos.items,
    "moving_digits": moving.moving_digits,
    "tfds": sources.tfds,
    "arrays": sources.arrays,
}
