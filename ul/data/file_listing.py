"""List the files of a folder, as every source and import does.

Links are followed, and each folder is visited once. What is not listed is counted.
"""

import collections
import dataclasses
import errno
import os
import stat
import time
from typing import NamedTuple

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


class ListedFile(NamedTuple):
    """A regular file: its path relative to the listed folder, its path, and its bytes."""

    name: str
    path: str
    size: int


@dataclasses.dataclass
class FileListing:
    """The files of a folder by name, and the number of skipped entries by reason."""

    files: list[ListedFile]
    skipped: collections.Counter[str]


class _KeptListing(NamedTuple):
    """A listing, and the time at which each folder below it was changed."""

    listing: FileListing
    changed_at: dict[str, int]


# The latest listings by folder: both splits of a source list the same one.
_kept: dict[str, _KeptListing] = {}
_MAX_KEPT = 4
# A folder that was changed less than this before its listing may change again without a
# difference in its time stamp.
_SETTLED_NS = 2_000_000_000


def list_files(root: str) -> FileListing:
    """Return all regular files below `root` that are not hidden, sorted by name.

    A folder that was listed before is not read again unless something was added, removed
    or renamed in it.

    Raises:
      DataError: `root` is not a directory, or one below it cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"{root} must be an existing directory. Check the path.")
    path = os.path.abspath(root)
    kept = _kept.pop(path, None)
    if kept is None or any(_changed_at(f) != t for f, t in kept.changed_at.items()):
        now = time.time_ns()
        kept = _read_folders(root)
        is_settled = all(now - t > _SETTLED_NS for t in kept.changed_at.values())
    else:
        is_settled = True
    if is_settled:
        _kept[path] = kept
        if len(_kept) > _MAX_KEPT:
            del _kept[next(iter(_kept))]
    files, skipped = kept.listing.files, kept.listing.skipped
    return FileListing(list(files), collections.Counter(skipped))


def _changed_at(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _read_folders(root: str) -> _KeptListing:
    """List `root` and all folders below it."""
    listing = FileListing([], collections.Counter())
    changed_at: dict[str, int] = {}
    visited: set[tuple[int, int]] = set()
    folders, links = [""], collections.deque[str]()
    bar = tqdm(desc=f"list {root}", unit="file", delay=2.0, dynamic_ncols=True)
    with bar:
        while folders or links:
            # Links wait for all real folders, so that none takes the place of its target.
            folder = folders.pop() if folders else links.popleft()
            path = os.path.join(root, folder)
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                listing.skipped["links to folders that are listed already"] += 1
                continue
            visited.add(identity)
            changed_at[path] = status.st_mtime_ns
            before = len(listing.files)
            inner, linked = _read_folder(root, folder, listing)
            folders += inner
            links += linked
            bar.update(len(listing.files) - before)
    listing.files.sort()
    return _KeptListing(listing, changed_at)


def _read_folder(
    root: str, folder: str, listing: FileListing
) -> tuple[list[str], list[str]]:
    """Add the files of one folder to the listing; return its folders, and links to some."""
    path = os.path.join(root, folder)
    prefix, full_prefix = os.path.join(folder, ""), os.path.join(path, "")
    inner: list[str] = []
    linked: list[str] = []
    # A loop over hundreds of thousands of files: it calls as little as it can.
    add, skipped = listing.files.append, listing.skipped
    make, is_file = ListedFile._make, stat.S_ISREG
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                base = entry.name
                if base[0] == ".":
                    skipped["hidden"] += 1
                    continue
                if base in SYSTEM_FOLDERS:
                    skipped["system folders"] += 1
                    continue
                try:
                    status = entry.stat()
                except OSError as e:
                    if e.errno != errno.ENOENT and not entry.is_symlink():
                        raise
                    skipped["links to nothing"] += 1  # or to themselves
                    continue
                if is_file(status.st_mode):
                    add(make((prefix + base, full_prefix + base, status.st_size)))
                elif stat.S_ISDIR(status.st_mode):
                    (linked if entry.is_symlink() else inner).append(prefix + base)
                else:
                    skipped["pipes, sockets and devices"] += 1
    except OSError as e:
        raise DataError(
            f"{e.filename or path} cannot be read: {e.strerror}. Check its permissions."
        ) from e
    return sorted(inner), sorted(linked)
