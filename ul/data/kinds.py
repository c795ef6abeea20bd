"""What data.source.kind may be."""

from collections.abc import Callable
from typing import Any

from ul.data import images, moving, sources

SOURCES: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "gaussian": sources.gaussian,
    "photos": sources.photos,
    "folder": sources.folder,
    "imported": images.imported,
    "moving_digits": moving.moving_digits,
    "tfds": sources.tfds,
    "arrays": sources.arrays,
}
