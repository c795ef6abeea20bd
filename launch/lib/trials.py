"""Running the trials of a sweep on this machine."""

from collections.abc import Callable, Sequence

from launch.lib import cluster, exit_codes, files
from ul import sweeps
from ul.core.errors import ConfigError, Preempted
from ul.stages import registry


def expand(described: list[dict], sets: Sequence[str]) -> list[sweeps.Trial]:
    """Return the trials of a sweep file, changed by the arguments of --set.

    Raises:
      ConfigError: a config cannot be read or is invalid.
    """
    configs: dict[str, dict] = {}

    def load(name: str) -> dict:
        if name not in configs:
            config = files.call_user_function("A trial's config", name, "get_config")
            configs[name] = registry.to_dict(config)
        return configs[name]

    return sweeps.expand(described, load, sets)


def choose(flag: str, trials: Sequence, names: list[str], name_of: Callable) -> list:
    """Return the trials with these names, or all if `names` is empty.

    Raises:
      ConfigError: a name in `flag` is unknown.
    """
    known = [name_of(trial) for trial in trials]
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(
            f"{flag} must name trials of the sweep ({', '.join(known)}); got {unknown}."
        )
    return [trial for trial in trials if not names or name_of(trial) in names]


def run(
    out: str,
    trials: list[sweeps.Trial],
    at_once: int,
    retries: int = 0,
    options: Sequence[str] = (),
    *,
    alone: bool = False,
) -> dict[str, int]:
    """Run the trials and return the exit codes of those that failed, by name.

    alone: print the output of the trials instead of a table of their progress.

    Raises:
      Preempted: a signal stopped the trials.
    """
    runner = sweeps.SweepRunner(
        out,
        trials,
        should_retry=exit_codes.run_again,
        jobs=at_once,
        retries=retries,
        options=options,
        log_to_files=not alone,
        is_first=cluster.process_index() == 0,
    )
    failed = runner.run()
    if runner.stopped:
        raise Preempted("Interrupted. Run the same command again to continue.")
    return failed
