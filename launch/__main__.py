"""List the commands (`python -m launch`) or run one (`python -m launch COMMAND ...`)."""

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
            f"ConfigError: There is no command {arguments[0]!r}. The nearest is "
            f"{command_list.nearest(name)!r}; `python -m launch` lists all commands.",
            file=sys.stderr,
        )
        return ConfigError.code
    sys.argv = arguments
    runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
