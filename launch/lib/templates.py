"""Filling the files of a place."""

import re
import shlex
from pathlib import Path


def quoted(words: list[str]) -> list[str]:
    """For a shell script, a word a line."""
    return [shlex.quote(word) for word in words]


def fill(template: Path, **values: str | int | list[str]) -> str:
    """The template with each `%{name}` replaced.

    A list's place is a line of its own: an element a line, indented as that line was.
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
