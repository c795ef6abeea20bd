"""Parsing the command line, with every mistake as a ConfigError of one line."""

import difflib
from collections.abc import Callable, Mapping

from absl import flags

from launch.lib import mistakes
from ul.core.errors import ConfigError

CONFIG_HELP = (
    "Shipped config and its variant, for example digits:stage1, or a file of your own, for "
    "example configs/mine.py:stage1. Required."
)


def parse(
    argv: list[str], main: Callable | Mapping[str, Callable], operand: str
) -> tuple[Callable, list[str]]:
    """Parse the flags and return the function to call, with its arguments.

    main, operand: as in `cli.run`.

    Raises:
      ConfigError: a flag or an argument is unknown, missing or has a wrong value.
    """
    try:
        operands = flags.FLAGS(argv)[1:]
    # ml_collections and config files raise other classes than flags.Error.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise ConfigError(mistakes.describe_parse_error(e, argv)) from e
    if isinstance(main, Mapping):
        main = main[_choose(operands.pop(0) if operands else "", main)]
    if operand and not operands:
        raise ConfigError(
            f"An argument is required, but it is missing. Pass {operand}."
        )
    if len(operands) > bool(operand):
        raise ConfigError(
            f"Unexpected argument {operands[-1]!r}; the names of flags begin with --."
        )
    return main, operands


def _choose(word: str, kinds: Mapping[str, Callable]) -> str:
    if word in kinds:
        return word
    near = difflib.get_close_matches(word, kinds, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"The first argument must be one of {', '.join(kinds)}; got "
        f"{repr(word) if word else 'none'}.{hint}"
    )
