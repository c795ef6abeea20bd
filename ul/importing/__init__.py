"""Original archives to images or clips of one size, once."""

from ul.importing.images import images_of
from ul.importing.videos import clips_of
from ul.importing.writing import said

__all__ = ["clips_of", "images_of", "said"]
