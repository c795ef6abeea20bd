"""The folder of compiled programs, as a flag."""

from absl import flags
from etils import epath

from ul.core import compile_cache, files

_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Folder of compiled programs, which save later starts their compilation; by default "
    "`compile_cache` in the workdir. `none` keeps none.",
)


def directory(workdir: str) -> str:
    """Return the folder for a run, or an empty text."""
    if _CACHE.value == "none":
        return ""
    return _CACHE.value or str(epath.Path(workdir) / "compile_cache")


def enable(workdir: str) -> str:
    """Use the compiled programs of a run, if there is such a run; return its workdir."""
    if directory(workdir) and files.exists(epath.Path(workdir) / "config.json"):
        compile_cache.enable(directory(workdir))
    return workdir
