"""The folder of compiled programs, as a flag."""

import os

from absl import flags

from ul.core import compile_cache

_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Folder of compiled programs, which save later starts their compilation; by default "
    "`compile_cache` in the workdir, for other commands than train if it is your own. "
    "`none` disables the cache.",
)


def directory(workdir: str) -> str:
    """Return the folder for a run, or an empty string if there is to be no cache."""
    if _CACHE.value == "none":
        return ""
    return _CACHE.value or f"{workdir}/compile_cache"


def enable(workdir: str) -> str:
    """Use the compiled programs of a run that is read; return its workdir.

    Compiled programs are machine code. By default those of a workdir are used only if the
    user owns it and trained there, so that no downloaded or shared run can bring its own.
    """
    folder = directory(workdir)
    if folder and (_CACHE.value or _is_own_run(workdir)):
        compile_cache.enable(folder)
    return workdir


def _is_own_run(workdir: str) -> bool:
    try:
        owner = os.stat(os.path.join(workdir, "verified")).st_uid
    except OSError:  # not there, an export, or in a bucket
        return False
    return owner == os.geteuid()
