"""Train, verify and evaluate the trials of a sweep, or continue it.

    python -m ul sweep bitrate --out runs/bitrate --jobs 2
    python -m ul sweep bitrate --out /shared/bitrate \\
        --place slurm --time 8:00:00 --dry-run

The argument is the name of a shipped sweep, such as bitrate, or a Python file
(experiments/README.md).
"""

import sys
from pathlib import Path

from absl import flags

from launch.gke import names
from launch.lib import cli, cluster, files, places, submit_flags, sweep_jobs, trials
from launch.lib.failures import raise_failures
from ul import sweeps

_OUT = flags.DEFINE_string("out", None, "Directory of all trials. Required.")
_PLACE = flags.DEFINE_enum(
    "place", "local", ["local", *sweep_jobs.PLACES], "Where the trials run."
)
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials that run here at the same time.", 1)
_RETRIES = submit_flags.define_retries()
_TRIAL = flags.DEFINE_list("trial", [], "Trials to run, by name; if empty, all.")
_SET = submit_flags.define_set()
_ATTEMPTS = submit_flags.define_max_attempts(
    None, "; if unset, never for --place local, and 5 for the others"
)
_NAME = submit_flags.define_job_name("the sweep")
_PYTHON = submit_flags.define_python()
_DRY_RUN = submit_flags.define_dry_run()
places.define_flags(*sweep_jobs.PLACES)


def _options(default_attempts: int) -> tuple[str, ...]:
    attempts = _ATTEMPTS.value or default_attempts
    return (*cluster.flags_to_pass_on(), f"--max_attempts={attempts}")


def _job(out: str, file: str) -> sweep_jobs.SweepJob:
    name = _NAME.value or Path(file.replace(".py", "")).name
    return sweep_jobs.SweepJob(
        name=names.kubernetes_name(name),
        config=file,
        workdir=out,
        overrides=tuple(f"--set={pair}" for pair in _SET.value),
        options=_options(5),
        max_attempts=_ATTEMPTS.value or 5,
        python=_PYTHON.value or places.PLACES[_PLACE.value].PYTHON,
    )


def main(file: str) -> None:
    """Run the trials here, or submit them."""
    out, place = cli.required(_OUT), _PLACE.value
    described = files.call_user_function("The sweep", file, "get_sweep")
    every = trials.expand(described, _SET.value)
    chosen = trials.choose("--trial", every, _TRIAL.value, lambda t: t.name)
    if place == "local" and _DRY_RUN.value:
        return print("\n".join(sweeps.command_lines(out, chosen, _options(0))))
    if place != "local":
        sweep_jobs.check(_job(out, file), place, chosen)
    if not _DRY_RUN.value and (place == "local" or "://" not in out):
        sweeps.write_or_check_sweep(out, file, every)
    if place != "local":
        unfinished = sweeps.unfinished_trials(out, chosen)
        job = _job(out, file)
        sys.exit(sweep_jobs.submit(job, place, unfinished, dry_run=_DRY_RUN.value))
    retries, alone = _RETRIES.value or 0, bool(_TRIAL.value)
    failed = trials.run(out, chosen, _JOBS.value, retries, _options(0), alone=alone)
    raise_failures(out, failed)


if __name__ == "__main__":
    groups = places.help_groups(*sweep_jobs.PLACES)
    operand = "the name of a shipped sweep, such as bitrate, or a Python file"
    cli.run(main, operand, groups=groups, exit_code_table=True)
