"""Storage that fails for a moment: which errors may pass, and calls that are repeated."""

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger("ul")
T = TypeVar("T")

MAX_ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
# Waiting does not change these: somebody has to change a path, a permission or a disk.
PERMANENT = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    )
)
# Packages behind object stores, whose errors are no OSErrors.
_REMOTE = ("aiohttp", "gcsfs", "google", "requests", "urllib3")


def is_storage_error(error: BaseException) -> bool:
    """Return whether the error comes from a file system or an object store."""
    is_remote = type(error).__module__.partition(".")[0] in _REMOTE
    return isinstance(error, OSError) or is_remote


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed later, as after a lost connection."""
    return is_storage_error(error) and getattr(error, "errno", None) not in PERMANENT


def retry(call: Callable[[], T], what: str) -> T:
    """Return `call()`, repeated after growing pauses while the storage fails.

    what: the call in the words of the log, such as "reading X".

    Raises:
      What `call` raised last; at once if waiting cannot help.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return call()
        except Exception as e:
            if attempt == MAX_ATTEMPTS or not may_pass(e):
                raise
            # Processes that fail together do not come back together.
            pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(1.0, 1.5)
            log.warning(
                "%s failed (%s); trying again in %.1f s", what, _first_line(e), pause
            )
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
