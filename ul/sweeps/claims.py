"""Who works on a stage: one process and the commands it starts, until all have ended."""

import fcntl
import os
from pathlib import Path

from ul.core.errors import StorageError


def take(path: Path) -> int | None:
    """A descriptor that holds the lock as long as a process has it; None if one has.

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
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(handle)
        if isinstance(e, BlockingIOError):
            return None
        raise StorageError(f"{path} cannot be locked: {e}") from e
    return handle
