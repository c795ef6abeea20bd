"""Files that are whole or not there, held by one process, told by how they begin."""

import fcntl
import hashlib
import os
from pathlib import Path

from etils import epath

from ul.core.errors import StorageError

BLOCK = 2**22
# What pickles are called: they can run code when they are read, and never are here.
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def write_atomic(path: epath.Path, content: str | bytes) -> None:
    """The whole file or none of it.

    Raises:
      StorageError: the disk refuses.
    """
    part = path.parent / f".{path.name}.part"
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e


def sha256(path: epath.Path) -> str:
    """Of a file, read in blocks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def lock(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that holds the file's lock until it is closed, also where a command
    has inherited it; None if another process holds it and we do not `wait`.

    Raises:
      StorageError: the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e
    try:
        # The kernel drops it with the last process, also after kill -9.
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as e:
        os.close(handle)
        if isinstance(e, BlockingIOError):
            return None
        raise StorageError(f"{path} cannot be locked: {e}") from e
    return handle


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle, alone or zipped as PyTorch's are.

    A safetensors file may begin alike, for its first eight bytes are a length; then
    comes JSON.
    """
    pickled = b"\x80\x02" <= head[:2] < b"\x80\x06"  # protocols 2 to 5
    return (pickled or head.startswith(b"PK\x03\x04")) and head[8:9] != b"{"


def hidden(name: str) -> bool:
    """A part of the path begins with a dot, as macOS's `._x` and `.cache` folders do."""
    return any(part.startswith(".") for part in name.split(os.sep))
