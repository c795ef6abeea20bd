"""Start and end of every command: flags, one line for an error, and an exit code."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from absl import flags
from absl import logging as absl_logging

from launch.lib import arguments, help_page, mistakes
from launch.lib.config_flag import define_config
from launch.lib.flag_groups import FlagGroup
from ul.core.errors import ConfigError

__all__ = ["define_config", "required", "run"]
_TRACE = flags.DEFINE_bool("trace", False, "Print the full traceback of an error.")
flags.DEFINE_bool("help", False, "Print this page and exit.")


def required(holder: flags.FlagHolder) -> Any:
    """Return the value of a flag; raise ConfigError if it is not on the command line."""
    if not holder.value:
        raise ConfigError(
            f"--{holder.name} is required, but it is not set. Pass --{holder.name}=VALUE "
            "(--help explains it)."
        )
    return holder.value


def _exit_successfully(number, frame) -> None:
    """Handle Ctrl-C after the command has finished: flush stdout and exit with 0."""
    with contextlib.suppress(OSError, RuntimeError):
        sys.stdout.flush()
    os._exit(0)


def run(
    main: Callable | Mapping[str, Callable],
    operand: str = "",
    *,
    groups: Mapping[str, FlagGroup] = MappingProxyType({}),
    exit_code_table: bool = False,
) -> None:
    """Run a command and exit with its code, or print its help page.

    main: a function, or several by the word that has to be the first argument.
    operand: what the single argument of `main` is, if it takes one.
    groups, exit_code_table: additions to the help page, see `help_page.render`.
    """
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(format=form, level=logging.WARNING, force=True)
    logging.getLogger("ul").setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax logs every detail
    absl_logging.get_absl_logger().addFilter(mistakes.shorten)
    # Its cache of fonts may name those of another environment, which was removed.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Storage that fails leaves other calls behind, whose errors would surround the message.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = mistakes.print_unraisable
    if callable(signal.getsignal(signal.SIGINT)):  # ul/__main__.py has set its own
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if help_page.is_requested(sys.argv[1:]):
            return print(help_page.render(main, groups, exit_code_table))
        function, operands = arguments.parse(sys.argv, main, operand)
        function(*operands)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _exit_successfully)
    except (Exception, KeyboardInterrupt) as e:
        trace = flags.FLAGS.is_parsed() and _TRACE.value
        mistakes.exit_with(e, trace=trace)
