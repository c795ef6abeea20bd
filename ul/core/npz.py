"""Read .npz files, which users bring along and which storage may damage."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from etils import epath

from ul.core import files

# The errors of a file that is missing, damaged or something else.
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


def _check(file: IO[bytes]) -> None:
    """Raise BadZipFile unless every member of a zip file is intact."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (RuntimeError, zlib.error) as e:  # it seems encrypted, or compressed
        raise zipfile.BadZipFile(str(e)) from e
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} is damaged")


@contextlib.contextmanager
def opened(path: epath.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an .npz file after checking all of it.

    numpy checks an array only when it is read, so a damaged name would make its array look
    as if it had never been there.

    Raises:
      One of UNREADABLE: the file is missing or is no .npz file, an array or a name is
        damaged, or pickled objects are read in the block.
      StorageError: the storage fails.
    """

    def open_checked() -> IO[bytes]:
        file = epath.Path(path).open("rb")
        try:
            _check(file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    with (
        files.read(open_checked, path) as file,
        np.load(file, allow_pickle=False) as data,
    ):
        yield data
