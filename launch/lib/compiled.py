"""The folder of compiled programs, as a flag."""

import os
from pathlib import Path

from absl import flags

from ul.core import compile_cache

_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Folder of compiled programs, which save later starts their compilation; by default "
    "`compile_cache` in the workdir for train, and ~/.cache/unified_latents for commands "
    "that read a run. `none` disables the cache.",
)


def directory(default: str) -> str:
    """Return the folder of --compile_cache or a default; "" if there is to be no cache."""
    return "" if _CACHE.value == "none" else _CACHE.value or default


def enable() -> None:
    """Use the compiled programs of this user, for commands that read a run.

    Compiled programs are machine code, so those in the workdir of a run are not used: other
    people may have written it.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    if folder := directory(str(Path(cache, "unified_latents", "compiled"))):
        compile_cache.enable(folder)
