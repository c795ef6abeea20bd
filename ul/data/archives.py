"""Files in folders and in tars of tars, as ranges of bytes: nothing is unpacked.

What the original archives of image data sets look like: a folder of class folders, a tar of
those, a tar of one tar a class (ILSVRC2012_img_train.tar), a tar of files alone (..._val.tar).
"""

import dataclasses
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ul.core.errors import DataError


@dataclasses.dataclass(frozen=True)
class Entry:
    """`size` bytes from `offset` on of `file`. name: where it lies below what was given;
    group: its folder or inner tar, "" for none."""

    name: str
    group: str
    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """All of it, or as much as there is: a cut file is for its decoder to refuse."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def entries(path: str, suffixes: tuple[str, ...]) -> Iterator[Entry]:
    """Every file with one of the `suffixes`, in no order; hidden ones (macOS's `._x`) are
    left out.

    Raises:
      DataError: nothing is there, or a tar is compressed or cut off.
    """
    where = Path(path)
    if where.is_dir():
        found = _in_folder(where)
    elif where.is_file():
        found = _in_tar(path, 0, "")
    else:
        raise DataError(f"{path} does not exist; give a folder or a .tar")
    for entry in found:
        base = os.path.basename(entry.name)
        if base.lower().endswith(suffixes) and not base.startswith("."):
            yield entry


def _in_folder(root: Path) -> Iterator[Entry]:
    for where, _, names in os.walk(root):
        for name in names:
            path = Path(where) / name
            relative = str(path.relative_to(root))
            yield Entry(relative, _top(relative), str(path), 0, path.stat().st_size)


def _in_tar(path: str, offset: int, group: str) -> Iterator[Entry]:
    """Of the tar that begins at `offset`; tars in it are looked into."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps millions
                    if not member.isfile():
                        continue
                    begin = member.offset_data
                    if member.name.endswith(".tar"):
                        yield from _in_tar(path, begin, Path(member.name).stem)
                    else:
                        name = os.path.join(group, os.path.normpath(member.name))
                        yield Entry(name, group or _top(name), path, begin, member.size)
                # tarfile takes a file cut between two members for a whole one.
                file.seek(tar.offset)
                if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                    raise EOFError("it is cut off")
    except (tarfile.TarError, OSError, EOFError) as e:
        raise DataError(
            f"{path} cannot be read as a tar without compression: {e}; "
            "unpack it, or fetch it again if it was cut off"
        ) from e


def _top(name: str) -> str:
    return name.split(os.sep)[0] if os.sep in name else ""
