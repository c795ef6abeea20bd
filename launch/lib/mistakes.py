"""Errors of a command: one line on the terminal and an exit code."""

import contextlib
import difflib
import logging
import sys
import traceback
from typing import Any, NoReturn

from absl import flags

from ul.core import extras, processes
from ul.core.errors import ConfigError, Preempted, UserError


def last_line(error: Exception) -> str:
    """Return an error's last line, where ml_collections and absl name the mistake."""
    return str(error.args[0] if error.args else error).strip().split("\n")[-1].strip()


def describe_parse_error(error: Exception, argv: list[str]) -> str:
    """Return what is wrong with the command line, and in which argument.

    For an unknown key of the config, ml_collections names the key but not the argument.
    """
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    message = str(error.args[0]).strip() if error.args else ""
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return "--config is required before --config.KEY=VALUE. Pass --config=NAME."
        near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        return f"Unknown flag --{error.flagname}.{hint}"
    if isinstance(error, flags.IllegalFlagValueError):
        typed = message.removeprefix("flag ").partition(": ")[0]
        return f"{typed}: {last_line(error).removeprefix(f'flag {typed}: ')}"
    if "before a value for --config was specified" in message:
        return "--config must stand before every --config.KEY=VALUE."
    if not (isinstance(error, KeyError) and message):
        return last_line(error)
    key, *hints = message.splitlines()
    culprits = (a for a in argv[1:] if key.strip("'") in a.partition("=")[0].split("."))
    argument = next(culprits, "--config")
    return " ".join([f"{argument}: the config has no key {key}.", *hints])


def shorten(record: logging.LogRecord) -> bool:
    """Log what Orbax reports of an error in one line; it raises the error as well."""
    record.msg, record.args = record.getMessage().split("\n")[0], ()
    record.exc_info = record.exc_text = None
    return True


def print_unraisable(unraisable: Any) -> None:
    """Take the place of sys.unraisablehook: say nothing of calls that nobody waits for.

    TensorStore reports here what it could not hand to an event loop that had ended.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def exit_with(error: BaseException, *, trace: bool) -> NoReturn:
    """Print an error as one line, with its traceback if unexpected, and exit."""
    if isinstance(error, KeyboardInterrupt):
        error = Preempted("Interrupted. Finished work is kept; run the command again.")
    if isinstance(error, ImportError) and "gcsfs" in str(error):  # raised by etils
        hint = extras.install_hint("gcs", "gcsfs")
        error = ConfigError(f"Paths in gs:// need gcsfs, which is missing. {hint}")
    if isinstance(error, ImportError) and "s3fs" in str(error):
        error = ConfigError("Paths in s3:// are not supported; use gs:// or a disk.")
    code = error.code if isinstance(error, UserError) else 1
    with contextlib.suppress(OSError):  # The disk of the log may be full, too.
        if code == 1 or trace:
            traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    processes.exit_after_error(code, str(error))
