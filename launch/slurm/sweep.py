"""Trials of a sweep, from a file."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ul.core.errors import ConfigError


def read(path: str, check: Callable[[Sequence[str]], None]) -> dict[str, list[str]]:
    """Overrides of each trial by its name; a line is a name and `--config.key=value`s.

    Raises:
      ConfigError: no such file or trial, a name twice, or what training would refuse.
    """
    try:
        lines = [shlex.split(line, comments=True) for line in Path(path).open()]
    except (OSError, ValueError) as e:
        raise ConfigError(f"--trials {path} cannot be read: {e}") from e
    found: dict[str, list[str]] = {}
    for name, *overrides in filter(None, lines):
        if name in found:
            raise ConfigError(f"--trials {path} has two trials {name!r}")
        for word in overrides:
            if not (word.startswith("--config.") and "=" in word):
                raise ConfigError(
                    f"--trials {path}, {name}: {word!r} is not --config.key=value"
                )
        check([word.removeprefix("--config.") for word in overrides])
        found[name] = overrides
    if not found:
        raise ConfigError(f"--trials {path} has no trials")
    return found
