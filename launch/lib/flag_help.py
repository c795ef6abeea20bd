"""Format a flag for the help page: its type, limits and default, then a sentence."""

import dataclasses
import textwrap
from typing import Any

from absl import flags

WIDTH = 88
# The name of a flag's type in absl -> what the page shows in its place.
TYPES = {
    "config file": "NAME:VARIANT",
    "comma separated list of strings": "A,B,...",
    "float": "NUMBER",
    "int": "INTEGER",
    "multi string": "STRING",
    "string": "STRING",
}


@dataclasses.dataclass(frozen=True)
class FlagHelp:
    """A flag on the help page.

    usage: for example "--steps=INTEGER". notes: limits and default, may be empty.
    """

    usage: str
    notes: str
    sentence: str

    def render(self) -> str:
        """Return the flag's lines."""
        head = f"  {self.usage}" + (f"  ({self.notes})" if self.notes else "")
        indent = " " * 6
        body = textwrap.fill(
            self.sentence,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        return f"{head}\n{body}"


def describe(
    flag: flags.Flag, default: Any, sentence: str, alias: str = ""
) -> FlagHelp:
    """Return the help of an absl flag with this default and sentence."""
    kind, notes = flag.flag_type(), []
    parser: Any = flag.parser
    if flag.boolean:
        usage = "--help" if flag.name == "help" else f"--[no]{flag.name}"
    elif kind == "string enum":
        usage = f"--{flag.name}={'|'.join(parser.enum_values)}"
    else:
        usage = f"--{flag.name}={TYPES.get(kind, 'VALUE')}"
    usage += f", --{alias}" * bool(alias)
    if kind.startswith("multi"):
        notes.append("repeatable")
    for words, bound in (("at least", "lower_bound"), ("at most", "upper_bound")):
        if getattr(parser, bound, None) is not None:
            notes.append(f"{words} {getattr(parser, bound)}")
    if default not in (None, "", [], ()):
        text = ",".join(default) if isinstance(default, list) else str(default)
        notes.append(f"default: {text.lower() if flag.boolean else text}")
    return FlagHelp(usage, ", ".join(notes), sentence)
