"""Filling the templates of a place."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ul.core.errors import ConfigError


def shell_words(words: list[str]) -> list[str]:
    """Return the words quoted for a shell script."""
    return [shlex.quote(word) for word in words]


def options(**values: str) -> list[str]:
    """Return --name=value for each value that is not empty."""
    return [f"--{key.replace('_', '-')}={v}" for key, v in values.items() if v]


def fill(template: Path, **values: str | int | list[str]) -> str:
    """Return the template with each `%{name}` replaced by its value.

    The placeholder of a list stands alone on its line; every element gets a line with the
    same indentation, and an empty list removes the line.
    """
    lines = []
    for line in template.read_text().splitlines():
        alone = re.fullmatch(r"( *)%\{(\w+)\}", line)
        value = values[alone[2]] if alone else None
        if alone and isinstance(value, list):
            lines += [alone[1] + element for element in value]
        else:
            lines.append(re.sub(r"%\{(\w+)\}", lambda m: str(values[m[1]]), line))
    return "\n".join(lines) + "\n"


def name_values(flag: str, values: Sequence[str]) -> Sequence[str]:
    """Return the values of a flag after checking that each is NAME=VALUE.

    Raises:
      ConfigError: one is not.
    """
    name = r"[A-Za-z_]\w*" if flag == "env" else r"[A-Za-z_][\w./-]*"
    for value in values:
        if not re.fullmatch(f"{name}=.*", value, re.DOTALL):
            raise ConfigError(f"--{flag} must be NAME=VALUE; got {value!r}.")
    return values
