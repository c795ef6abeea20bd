"""List the commands (`python -m ul`) or run one (`python -m ul COMMAND ...`)."""

import runpy
import sys

from launch.lib import command_list
from ul.core.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Return the exit code of the list; a command exits with its own."""
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(command_list.listing())
        return 0
    name = arguments[0].replace("-", "_")
    if name not in command_list.names():
        print(
            "ConfigError: COMMAND must be one that python -m ul lists; got "
            f"{arguments[0]!r}. Did you mean {command_list.nearest(name)!r}?",
            file=sys.stderr,
        )
        return ConfigError.code
    sys.argv = arguments
    runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
