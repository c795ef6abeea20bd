"""Files in folders, tars and tars of tars, as ranges of bytes; nothing is unpacked.

The original archives of image and video datasets are of these forms: a folder of class
folders, a tar of them, a tar with one tar per class (ILSVRC2012_img_train.tar), a tar of
files alone (ILSVRC2012_img_val.tar), a folder of tars (Kinetics).
"""

import collections
import dataclasses
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ul.core.errors import DataError
from ul.core.files import is_hidden, read_error
from ul.data import file_listing


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file: the `size` bytes of `file` from `offset` on.

    name: its path within the folder or tar that was listed.
    group: its top folder or the tar inside that folder or tar; "" if it has neither.
    """

    name: str
    group: str
    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return all bytes, or fewer if the file is truncated; its decoder refuses that."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def iterate_entries(path: str, skipped: collections.Counter[str]) -> Iterator[Entry]:
    """Yield every file in a folder or tar that is not hidden, in no particular order.

    Links are followed, and each folder is visited once. What is skipped is counted in
    `skipped` by reason.

    Raises:
      DataError: nothing is there, a folder cannot be read, or a tar is compressed,
        truncated or has a link to a file outside of it.
      StorageError: the storage fails.
    """
    if os.path.isdir(path):
        entries = _folder_entries(path, skipped)
    elif os.path.isfile(path):
        entries = _tar_entries(path, 0, "")
    else:
        raise DataError(
            f"{path!r} must be a folder or a .tar file; it does not exist. Check the path."
        )
    for entry in entries:
        if is_hidden(entry.name):
            skipped["hidden"] += 1
        else:
            yield entry


def _folder_entries(root: str, skipped: collections.Counter[str]) -> Iterator[Entry]:
    listing = file_listing.list_files(root)
    skipped += listing.skipped
    for file in listing.files:
        if file.name.endswith(".tar"):
            yield from _tar_entries(file.path, 0, Path(file.name).stem)
        else:
            group = _top_folder(file.name)
            yield Entry(file.name, group, file.path, 0, file.size)


def _tar_entries(path: str, offset: int, group: str) -> Iterator[Entry]:
    """Yield the files of the tar that starts at `offset`, and of the tars in it."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _members(path, tar, group)
                # tarfile does not notice that a tar was cut off between two members.
                file.seek(tar.offset)
                if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                    raise EOFError("the file is truncated")
    except (tarfile.TarError, EOFError) as e:
        raise DataError(
            f"{path} must be a complete tar without compression; reading it failed: {e}. "
            "Decompress it, or download it again if it is truncated."
        ) from e
    except OSError as e:
        raise read_error(path, e) from e


def _members(path: str, tar: tarfile.TarFile, group: str) -> Iterator[Entry]:
    ranges: dict[str, tuple[int, int]] = {}
    links: list[tuple[str, str]] = []
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # It would keep millions of them.
        name = _normalize(member.name)
        # macOS leaves files like `._x.tar`, which are not tars, beside x.tar.
        if member.isfile() and name.endswith(".tar") and not is_hidden(name):
            yield from _tar_entries(path, member.offset_data, Path(name).stem)
        elif member.isfile():
            ranges[name] = member.offset_data, member.size
        elif member.islnk():
            links.append((name, _normalize(member.linkname)))
        elif member.issym():
            target = os.path.join(os.path.dirname(name), member.linkname)
            links.append((name, _normalize(target)))
    for name, target in links:
        if target not in ranges:
            raise DataError(
                f"Links in {path} must point to files in it; {name} points to {target}. "
                "Replace the link by a copy."
            )
        ranges[name] = ranges[target]
    for name, (offset, size) in ranges.items():
        full_name = os.path.join(group, name)
        yield Entry(full_name, group or _top_folder(name), path, offset, size)


def _normalize(name: str) -> str:
    """Return a member's name without a leading `./` or `/`."""
    return os.path.normpath(name).lstrip(os.sep)


def _top_folder(name: str) -> str:
    return name.split(os.sep)[0] if os.sep in name else ""
