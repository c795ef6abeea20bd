"""The exit codes of all commands. A test compares launch/README.md's table with this one."""

import dataclasses

from ul.core import errors


@dataclasses.dataclass(frozen=True)
class ExitCode:
    """One row of the table.

    code: a number, or words that stand for several numbers.
    run_again: whether the same command may succeed if it is run again.
    """

    code: str
    run_again: bool
    meaning: str


def _row(error: type[errors.UserError], run_again: bool, meaning: str) -> ExitCode:
    return ExitCode(str(error.code), run_again, meaning)


EXIT_CODES = (
    ExitCode("0", False, "The command finished."),
    _row(
        errors.ConfigError,
        False,
        "Invalid config, arguments or paths, or a device is out of memory.",
    ),
    _row(errors.DataError, False, "Data are missing or broken."),
    _row(errors.CheckpointError, False, "A needed checkpoint cannot be loaded."),
    _row(errors.NoProgress, False, "The last --max_attempts starts saved nothing new."),
    _row(errors.NonFiniteError, False, "Training produced NaN or infinity."),
    _row(errors.WorkdirInUse, False, "Another run uses the workdir."),
    _row(errors.StorageError, True, "The storage failed in reading or writing a file."),
    _row(
        errors.Preempted,
        True,
        "SIGTERM or Ctrl-C ended the command; training saved first if it had done a step.",
    ),
    _row(
        errors.PosteriorCollapse,
        False,
        "The rate stayed below loss.rate_floor_bpp: the latents collapsed.",
    ),
    _row(
        errors.Stalled,
        True,
        "The run made no progress for too long; WORKDIR/logs has the stacks of all threads.",
    ),
    _row(errors.PeerLost, True, "Another process of the run ended."),
    ExitCode(
        "128 to 255", True, "A signal ended the process; 137, for example, is SIGKILL."
    ),
    _row(
        errors.UserError,
        True,
        "An unexpected error; retried at most --max_attempts times.",
    ),
    ExitCode("any other", False, "The command itself could not run."),
)
_RUN_AGAIN = {int(r.code) for r in EXIT_CODES if r.run_again and r.code.isdigit()}


def run_again(code: int) -> bool:
    """Return whether the same command may succeed if it is run again."""
    return code in _RUN_AGAIN or code >= 128


def table() -> str:
    """Return the table for a help page."""
    lines = [f"  {'code':10}  {'run again?':10}  meaning"]
    for row in EXIT_CODES:
        again = "yes" if row.run_again else "no"
        lines.append(f"  {row.code:10}  {again:10}  {row.meaning}")
    return "\n".join(lines)
