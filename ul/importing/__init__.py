"""Layer 4: importers: convert original archives once to images or clips of one size."""

from ul.importing.images import import_images
from ul.importing.videos import import_videos
from ul.importing.writing import summarize

__all__ = ["import_images", "import_videos", "summarize"]
