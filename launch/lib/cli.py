"""How every main starts and ends: flags in, one line and an exit code out."""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping

from absl import app, flags
from absl import logging as absl_logging

from launch.lib import mistakes
from launch.lib.config_flag import define_config
from ul.core import processes
from ul.core.errors import ConfigError, Preempted, UserError

__all__ = ["define_config", "required", "run"]
_TRACE = flags.DEFINE_bool("trace", False, "Show the whole trace of an error.")


def required(holder: flags.FlagHolder) -> str:
    """The value of a flag that must be given; ConfigError names it where it is not."""
    if not holder.value:
        raise ConfigError(f"--{holder.name} is missing")
    return holder.value


def _parse(argv: list[str]) -> list[str]:
    """absl's parse; what a user mistyped becomes a ConfigError of one line."""
    app.define_help_flags()
    try:
        return flags.FLAGS(argv)
    # Beside flags.Error: what ml_collections and config files raise for what they get.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise ConfigError(mistakes.mistyped(e, argv)) from e


def run(main: Callable | Mapping[str, Callable], operand: str = "") -> None:
    """Run `main` (which takes `operand`), or the one that is named; exit with its code."""
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(format=form, level=logging.WARNING, force=True)
    logging.getLogger("ul").setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells much
    try:
        rest = _parse(sys.argv)[1:]
        if isinstance(main, Mapping) and (not rest or rest[0] not in main):
            raise ConfigError(f"say what to do; known are {', '.join(main)}")
        main = main[rest.pop(0)] if isinstance(main, Mapping) else main
        if len(rest) != bool(operand):
            said = f"unexpected argument {rest[-1]!r}" if rest else f"give {operand}"
            raise ConfigError(said)
        main(*rest)
    except (Exception, KeyboardInterrupt) as e:
        if isinstance(e, KeyboardInterrupt):
            e = Preempted("interrupted; what is finished stays, run it again")
        code = e.code if isinstance(e, UserError) else 1
        if code == 1 or flags.FLAGS.is_parsed() and _TRACE.value:
            traceback.print_exc()
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        processes.exit_after_error(code, str(e))
