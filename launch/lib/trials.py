"""Trials on this machine: run, and what failed as the error of the command."""

from collections.abc import Callable, Sequence

from launch.lib import cluster, files, jobs
from ul import sweeps
from ul.core.errors import ConfigError, Preempted, UserError
from ul.stages import registry


def expand(described: list[dict], sets: Sequence[str]) -> list[sweeps.Trial]:
    """A sweep file's trials, every config validated.

    Raises:
      ConfigError: as ul.sweeps.expand, and configs that cannot be read.
    """
    known: dict[str, dict] = {}

    def load(name: str) -> dict:
        if name not in known:
            known[name] = registry.to_dict(files.call("config", name, "get_config"))
        return known[name]

    return sweeps.expand(described, load, sets)


def choose(flag: str, trials: Sequence, names: list[str], name_of: Callable) -> list:
    """Those of the names, or all without any; ConfigError for names that are none."""
    known = [name_of(trial) for trial in trials]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"{flag} has unknown {unknown}; known are {', '.join(known)}")
    return [
        t for t, name in zip(trials, known, strict=True) if name in names or not names
    ]


def run(
    out: str,
    trials: list[sweeps.Trial],
    at_once: int,
    retries: int = 0,
    options: Sequence[str] = (),
    *,
    alone: bool = False,
) -> dict[str, int]:
    """Exit codes of those that failed. `alone`: no table, output comes here.

    Raises:
      Preempted: a signal stopped them.
    """
    runner = sweeps.SweepRunner(
        out,
        trials,
        should_retry=jobs.run_again,
        jobs=at_once,
        retries=retries,
        options=options,
        log_to_files=not alone,
        is_first=cluster.index() == 0,
    )
    failed = runner.run()
    if runner.stopped:
        raise Preempted("interrupted; run the same command again to go on")
    return failed


def report(out: str, failed: dict[str, int]) -> None:
    """Raises UserError, with the exit code of the first, if any failed."""
    if failed:
        error = UserError(f"failed, with exit codes: {failed}; see {out}/<trial>.log")
        error.code = next(iter(failed.values()))
        raise error
