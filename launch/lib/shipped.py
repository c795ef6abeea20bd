"""The configs and sweeps that ship with the project, found by name from any folder."""

import difflib
from pathlib import Path

from ul.core.errors import ConfigError

# The repository, or the folder of a wheel with the packages launch and experiments.
ROOT = Path(__file__).parents[2]
# The function that a file must have -> the folder of the shipped files with it.
FOLDERS = {
    "get_config": ROOT / "experiments",
    "get_sweep": ROOT / "experiments" / "sweeps",
}


def require_clone(reason: str) -> None:
    """Raise ConfigError, with the reason, if this is an installed package."""
    if not (ROOT / ".git").exists():
        raise ConfigError(
            f"{reason}, but this is an installed package ({ROOT}). Run the command in a "
            "clone."
        )


def names(function: str) -> list[str]:
    """Return the names of the shipped files that have this function."""
    files: list[Path] = sorted(FOLDERS[function].glob("*.py"))
    return [f.stem for f in files if f"\ndef {function}(" in f.read_text()]


def resolve(flag: str, name: str, function: str) -> str:
    """Return the path, with its argument, that `NAME`, `NAME:ARG` or `FILE.py:ARG` means.

    A name with a slash or the ending .py is a path already.

    Raises:
      ConfigError: `flag` names no shipped file.
    """
    stem, colon, arg = name.partition(":")
    if "/" in stem or stem.endswith(".py"):
        return name
    if stem not in names(function):
        near = difflib.get_close_matches(stem, names(function), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{flag} must be the path of a Python file (NAME.py) or one of "
            f"{', '.join(names(function))}; got {stem!r}.{hint}"
        )
    return f"{FOLDERS[function] / stem}.py{colon}{arg}"
