"""Files in folders and in tars of tars, as ranges of bytes: nothing is unpacked.

What the original archives of image data sets look like: a folder of class folders, a tar of
those, a tar of one tar a class (ILSVRC2012_img_train.tar), a tar of files alone (..._val.tar),
a folder of tars (Kinetics).
"""

import dataclasses
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ul.core.errors import DataError
from ul.core.files import is_hidden


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


def entries(path: str) -> Iterator[Entry]:
    """Every file that is not hidden, in no order. Links are followed.

    Raises:
      DataError: nothing is there, a folder cannot be read, or a tar is compressed, cut off
        or links to what it does not hold.
    """
    where = Path(path)
    if where.is_dir():
        found = _in_folder(where)
    elif where.is_file():
        found = _in_tar(path, 0, "")
    else:
        raise DataError(f"{path} does not exist; give a folder or a .tar")
    for entry in found:
        if not is_hidden(entry.name):
            yield entry


def _in_folder(root: Path) -> Iterator[Entry]:
    def fail(error: OSError):
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    for where, _, names in os.walk(root, followlinks=True, onerror=fail):
        for name in names:
            path = Path(where) / name
            relative = str(path.relative_to(root))
            if name.endswith(".tar") and not is_hidden(relative):
                yield from _in_tar(str(path), 0, path.stem)
                continue
            # A link to nothing has no size; whoever reads it is told.
            size = path.stat().st_size if path.exists() else 0
            yield Entry(relative, _top(relative), str(path), 0, size)


def _in_tar(path: str, offset: int, group: str) -> Iterator[Entry]:
    """Of the tar that begins at `offset`; tars in it are looked into."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _members(path, tar, group)
                # tarfile takes a file cut between two members for a whole one.
                file.seek(tar.offset)
                if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                    raise EOFError("it is cut off")
    except (tarfile.TarError, OSError, EOFError) as e:
        raise DataError(
            f"{path} cannot be read as a tar without compression: {e}; "
            "unpack it, or fetch it again if it was cut off"
        ) from e


def _members(path: str, tar: tarfile.TarFile, group: str) -> Iterator[Entry]:
    places: dict[str, tuple[int, int]] = {}
    links: list[tuple[str, str]] = []
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps millions
        name = _inside(member.name)
        # macOS leaves a `._x.tar` beside x.tar that is none.
        if member.isfile() and name.endswith(".tar") and not is_hidden(name):
            yield from _in_tar(path, member.offset_data, Path(name).stem)
        elif member.isfile():
            places[name] = member.offset_data, member.size
        elif member.islnk():
            links.append((name, _inside(member.linkname)))
        elif member.issym():
            links.append(
                (name, _inside(os.path.join(os.path.dirname(name), member.linkname)))
            )
    for name, target in links:
        if target not in places:
            raise DataError(f"{path}: {name} is a link to {target}, no file in there")
        places[name] = places[target]
    for name, (begin, size) in places.items():
        yield Entry(os.path.join(group, name), group or _top(name), path, begin, size)


def _inside(name: str) -> str:
    """A member's name below the tar: without `./` and `/` before it."""
    return os.path.normpath(name).lstrip(os.sep)


def _top(name: str) -> str:
    return name.split(os.sep)[0] if os.sep in name else ""
