"""List the files of a folder, as every source and import does.

Links are followed, and each folder is visited once. What is not listed is counted.
"""

import collections
import dataclasses
import os
import stat

from tqdm import tqdm

from ul.core.errors import DataError

# Folders that operating systems and storage devices put beside the files of users.
SYSTEM_FOLDERS = (
    "@eaDir",
    "__MACOSX",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
)


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """A regular file: its path relative to the listed folder, its path, and its bytes."""

    name: str
    path: str
    size: int


@dataclasses.dataclass
class FileListing:
    """The files of a folder by name, and the number of skipped entries by reason."""

    files: list[ListedFile]
    skipped: collections.Counter[str]


def list_files(root: str) -> FileListing:
    """Return all regular files below `root` that are not hidden, sorted by name.

    Raises:
      DataError: `root` is not a directory, or one below it cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"{root} must be an existing directory. Check the path.")
    listing = FileListing([], collections.Counter())
    visited: set[tuple[int, int]] = set()
    folders, links = [""], collections.deque[str]()
    bar = tqdm(desc=f"list {root}", unit="file", delay=2.0, dynamic_ncols=True)
    with bar:
        while folders or links:
            # Links wait for all real folders, so that none takes the place of its target.
            folder = folders.pop() if folders else links.popleft()
            status = os.stat(os.path.join(root, folder))
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                listing.skipped["links to folders that are listed already"] += 1
                continue
            visited.add(identity)
            for name, is_link in _children(root, folder):
                mode, size = _mode_and_size(os.path.join(root, name))
                if (reason := _skip_reason(name, mode)) is not None:
                    listing.skipped[reason] += 1
                elif stat.S_ISDIR(mode):
                    links.append(name) if is_link else folders.append(name)
                else:
                    path = os.path.join(root, name)
                    listing.files.append(ListedFile(name, path, size))
                    bar.update()
    listing.files.sort(key=lambda file: file.name)
    return listing


def _children(root: str, folder: str) -> list[tuple[str, bool]]:
    """Return the entries of a folder by their names below `root`, and which are links."""
    path = os.path.join(root, folder)
    try:
        with os.scandir(path) as entries:
            children = [(os.path.join(folder, e.name), e.is_symlink()) for e in entries]
    except OSError as e:
        raise DataError(
            f"{path} cannot be read: {e.strerror}. Check its permissions."
        ) from e
    return sorted(children)


def _mode_and_size(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    except OSError as e:
        if os.path.islink(path):
            return 0, 0  # A link to itself, for example.
        raise DataError(
            f"{path} cannot be read: {e.strerror}. Check its permissions."
        ) from e
    return status.st_mode, status.st_size


def _skip_reason(name: str, mode: int) -> str | None:
    base = os.path.basename(name)
    if base.startswith("."):
        return "hidden"
    if base in SYSTEM_FOLDERS:
        return "system folders"
    if not mode:
        return "links to nothing"
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        return "pipes, sockets and devices"
    return None
