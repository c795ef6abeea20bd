"""All test workers, their commands and later runs share one cache of compiled programs."""

import os
import shutil
from pathlib import Path

from ul.core import cpu_features  # it does not import JAX, which reads what is set here

LARGEST = 500 * 2**20  # bytes


def environment() -> dict[str, str]:
    """Return JAX's settings of a cache in the user's cache folder.

    JAX's keys contain the versions and XLA's flags, but not the instructions of the CPU,
    so every kind of CPU has a folder. JAX's own limit of the size is not used: it reads
    the whole folder for every program.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "unified_latents", f"tests-{cpu_features.digest()}")
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prune() -> None:
    """Empty the cache if it is larger than LARGEST."""
    folder = Path(environment()["JAX_COMPILATION_CACHE_DIR"])
    if folder.is_dir() and sum(f.stat().st_size for f in folder.iterdir()) > LARGEST:
        shutil.rmtree(folder, ignore_errors=True)
