"""The end of a sweep whose trials failed."""

from etils import epath

from ul.core.errors import UserError


def raise_failures(out: str, failed: dict[str, int]) -> None:
    """Raise UserError with the exit code of the first failed trial, if there is one.

    The message names the logs of the failed trials; a single trial has none, because its
    output goes to the terminal.
    """
    if not failed:
        return
    paths = [epath.Path(out) / f"{name}.log" for name in failed]
    logs = ", ".join(str(path) for path in paths if path.exists())
    codes = ", ".join(f"{name}: {code}" for name, code in failed.items())
    error = UserError(
        f"Trials failed (exit codes {codes}); see {logs or 'the output above'}."
    )
    error.code = next(iter(failed.values()))
    raise error
