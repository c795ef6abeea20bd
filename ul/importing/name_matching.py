"""Find what a text file says of an image or clip, by the name of its file."""

import collections
import os
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from ul.core.errors import DataError

T = TypeVar("T")


def normalize(name: str) -> str:
    """Return a file name as it is compared: composed Unicode, slashes, no leading `./`.

    macOS stores accents as characters of their own; Windows separates folders by `\\`.
    """
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return name.removeprefix("./")


class NameMatcher(Generic[T]):
    """Values by the name of a file: its path or base name, each with or without suffix.

    noun: what messages call a value, such as "caption". source: where the values are from.
    advice: further help for ambiguous names.
    """

    def __init__(
        self,
        values: Mapping[str, T],
        names: Iterable[str],
        *,
        noun: str,
        source: str,
        advice: str = "",
    ):
        """`names` are the paths of all files, in which a shorter name may be ambiguous."""
        self._values = {normalize(name): value for name, value in values.items()}
        self._noun, self._source, self._advice = noun, source, advice
        self._num_files: collections.Counter[str] = collections.Counter()
        for name in names:
            self._num_files.update(_keys(normalize(name)))

    def find(self, name: str) -> T | None:
        """Return the value of the file, or None.

        Raises:
          DataError: the only name that has a value is that of several files.
        """
        for key in _keys(normalize(name)):
            if key not in self._values:
                continue
            if (count := self._num_files[key]) > 1:
                raise DataError(
                    f"Each {self._noun} in {self._source} must belong to one file; {key!r} "
                    f"is the name of {count} files, for example {name}. Use names with "
                    f"folders{self._advice}."
                )
            return self._values[key]
        return None


def _keys(name: str) -> list[str]:
    """Return the names by which a file may be called, each once, the longest first."""
    base = os.path.basename(name)
    keys = (name, os.path.splitext(name)[0], base, os.path.splitext(base)[0])
    return list(dict.fromkeys(keys))
