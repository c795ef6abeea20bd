"""Atomic writes, file locks, digests, and the detection of pickles and hidden files."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from etils import epath

from ul.core import storage
from ul.core.errors import StorageError, UnusablePath

T = TypeVar("T")
READ_BLOCK_BYTES = 2**22
# Suffixes of pickle files. Reading a pickle can run code, so none is ever read.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def write_error(path: object, error: Exception) -> StorageError:
    """Return the error to raise for a file or directory that cannot be written.

    It is an UnusablePath, which no launcher tries again, if waiting cannot help.
    """
    reason = str(error).strip().split("\n")[0]
    message = f"{path} cannot be written: {reason}. "
    if storage.is_storage_error(error) and not storage.may_pass(error):
        return UnusablePath(message + "Change its permissions or choose another path.")
    return StorageError(message + "Check the storage and its free space.")


def write(call: Callable[[], T], path: object) -> T:
    """Return `call()`, which writes `path`; storage that fails is tried a few times.

    Raises:
      StorageError: it cannot be written.
    """
    try:
        return storage.retry(call, f"writing {path}")
    except Exception as e:
        if not storage.is_storage_error(e):
            raise
        raise write_error(path, e) from e


def write_atomic(path: epath.Path, content: str | bytes) -> None:
    """Write a file so that readers see all of the content or none of it.

    Raises:
      StorageError: the file cannot be written.
    """
    temporary = path.parent / f".{path.name}.part"
    data = content.encode() if isinstance(content, str) else content

    def replace():
        temporary.write_bytes(data)
        temporary.replace(path)

    write(replace, path)


def read(call: Callable[[], T], path: object) -> T:
    """Return `call()`, which reads `path`; storage that fails is tried a few times.

    Raises:
      FileNotFoundError, NotADirectoryError: there is no such file.
      StorageError: it cannot be read.
    """
    try:
        return storage.retry(call, f"reading {path}")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except Exception as e:
        if not storage.is_storage_error(e):
            raise
        raise read_error(path, e) from e


def read_bytes(path: epath.Path) -> bytes:
    """Return the content of a file.

    Raises:
      FileNotFoundError, NotADirectoryError, StorageError: as `read`.
    """
    return read(path.read_bytes, path)


def read_text(path: epath.Path) -> str:
    """Return the text of a file.

    Raises:
      FileNotFoundError, NotADirectoryError, StorageError: as `read`.
      ValueError: it is not UTF-8.
    """
    return read_bytes(path).decode()


def exists(path: epath.Path) -> bool:
    """Return whether there is such a file or directory.

    `path.exists()` also returns False where the storage fails, and what exists would be
    written again.

    Raises:
      StorageError: the storage does not say.
    """
    try:
        read(lambda: _stat(path), path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_directory(path: epath.Path) -> bool:
    """Return whether there is such a directory.

    Raises:
      StorageError: the storage does not say.
    """
    try:
        status = read(lambda: _stat(path), path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if isinstance(status, os.stat_result):
        return stat.S_ISDIR(status.st_mode)
    return status.is_directory


def size(path: epath.Path) -> int:
    """Return the size of a file in bytes.

    Raises:
      FileNotFoundError, NotADirectoryError, StorageError: as `read`.
    """
    status = read(lambda: _stat(path), path)
    return status.st_size if isinstance(status, os.stat_result) else status.length


def _stat(path: epath.Path):
    # That of epath fails for a user without a name, as containers may have.
    return path.stat() if "://" in str(path) else os.stat(path)


def names(directory: epath.Path, suffix: str = "") -> list[str]:
    """Return the sorted names of a directory that end in `suffix`; [] if there is none.

    `directory.glob` also returns nothing where the storage fails.

    Raises:
      StorageError: the directory cannot be listed.
    """
    try:
        listed = read(lambda: [entry.name for entry in directory.iterdir()], directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in listed if name.endswith(suffix))


def make_directory(path: epath.Path) -> None:
    """Create a directory and those above it, if needed.

    Raises:
      StorageError: it cannot be created.
    """
    write(lambda: path.mkdir(parents=True, exist_ok=True), path)


def open_to_append(path: epath.Path) -> IO[bytes]:
    """Open a file that grows, such as a log, in a directory that is created if needed.

    Raises:
      StorageError: it cannot be opened.
    """
    make_directory(path.parent)
    return write(lambda: path.open("ab"), path)


def remove(path: epath.Path) -> None:
    """Remove a file if it exists.

    Raises:
      StorageError: it cannot be removed.
    """
    write(lambda: path.unlink(missing_ok=True), path)


def read_error(path: object, error: Exception) -> StorageError:
    """Return the error to raise for a file or directory that cannot be read."""
    reason = str(error).strip().split("\n")[0]
    message = f"{path} cannot be read: {reason}. "
    if not storage.may_pass(error):
        return UnusablePath(message + "Change its permissions or choose another path.")
    return StorageError(message + "Check the storage and run the same command again.")


def numpy_reason(error: Exception) -> str:
    """Return why numpy could not load a file, in one line.

    For pickled objects, numpy itself proposes a setting that would run what they contain.
    """
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    is_pickle_error = "allow_pickle" in reason or "Python objects" in reason
    return "it holds pickled objects" if is_pickle_error else reason


def sha256(path: epath.Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal.

    Raises:
      FileNotFoundError, NotADirectoryError, StorageError: as `read`.
    """

    def digest():
        total = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(READ_BLOCK_BYTES):
                total.update(block)
        return total.hexdigest()

    return read(digest, path)


def lock(path: Path, *, wait: bool = False) -> int | None:
    """Lock a file and return the descriptor that holds the lock until it is closed.

    A child process that inherits the descriptor keeps the lock as well. The result is
    None if another process holds the lock and `wait` is False.

    Raises:
      StorageError: the file cannot be created or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise write_error(path, e) from e
    try:
        # The kernel releases the lock with the last process, even after kill -9.
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as e:
        os.close(descriptor)
        if isinstance(e, BlockingIOError):
            return None
        raise StorageError(
            f"{path} cannot be locked: {e}. Use a file system that supports flock."
        ) from e
    return descriptor


def is_pickle(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a pickle, plain or zipped.

    A safetensors file may begin with the same bytes, because its first eight bytes are a
    length. JSON follows that length, which distinguishes the two.
    """
    is_plain = b"\x80\x02" <= head[:2] < b"\x80\x06"  # protocols 2 to 5
    is_zip = head.startswith(b"PK\x03\x04")  # PyTorch zips its pickles.
    return (is_plain or is_zip) and head[8:9] != b"{"


def display_name(name: str) -> str:
    """Return a file name as valid Unicode, even if it is not UTF-8 on disk."""
    return os.fsencode(name).decode(errors="replace")


def is_hidden(path: str) -> bool:
    """Return whether a part of the path begins with a dot, such as `.cache` or `._x`."""
    return any(part.startswith(".") for part in path.split(os.sep))
