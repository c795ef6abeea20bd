"""Trials of a sweep: both stages of each, trained, verified and evaluated.

    python -m launch.sweep experiments/sweeps/bitrate.py --out runs/bitrate --jobs 2
    python -m launch.sweep FILE --out OUT --place slurm --time 8:00:00 --dry-run

Run it again and it goes on: launch/README.md.
"""

import sys
from pathlib import Path

from absl import flags

from launch.lib import cli, cluster, files, places, sweep_jobs, trials
from ul import sweeps

_OUT = flags.DEFINE_string("out", None, "Where the runs go.")
_PLACE = flags.DEFINE_enum("place", "local", ["local", *sweep_jobs.KINDS], "Where.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials at a time, here.", lower_bound=1)
_RETRIES = flags.DEFINE_integer(
    "retries", None, "Run a trial again so often, if its exit code allows it.", 0
)
_TRIAL = flags.DEFINE_list(
    "trial", [], "These alone, as a job runs one; output comes here."
)
_SET = flags.DEFINE_multi_string("set", [], "key=value of every stage; stage2:key=...")
_ATTEMPTS = flags.DEFINE_integer(
    "max_attempts", None, "A stage stops after so many starts that saved nothing.", 0
)
_NAME = flags.DEFINE_string("name", None, "The jobs' name; the file's if unset.")
_PYTHON = flags.DEFINE_string("python", None, "Python in that place.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be run or submitted.")
flags.DEFINE_alias("dry-run", "dry_run")
places.define_flags(*sweep_jobs.KINDS)


def _options(attempts: int) -> list[str]:
    return [
        *cluster.flags_to_pass_on(),
        f"--max_attempts={_ATTEMPTS.value or attempts}",
    ]


def _there(out: str, file: str, left: list[sweeps.Trial]) -> sweep_jobs.SweepJob:
    return sweep_jobs.SweepJob(
        name=sweep_jobs.kubernetes_name(
            _NAME.value or Path(file.replace(".py", "")).name
        ),
        config=file,
        workdir=out,
        overrides=tuple(f"--set={pair}" for pair in _SET.value),
        options=tuple(_options(5)),
        max_attempts=_ATTEMPTS.value or 5,
        python=_PYTHON.value or places.PLACES[_PLACE.value].PYTHON,
        trials=tuple(trial.name for trial in left),
    )


def main(file: str) -> None:
    out, place = cli.required(_OUT), _PLACE.value
    made = trials.expand(
        files.call_user_function("a sweep's file", file, "get_sweep"), _SET.value
    )
    chosen = trials.choose("--trial", made, _TRIAL.value, lambda t: t.name)
    if place == "local" and _DRY_RUN.value:
        return print("\n".join(sweeps.command_lines(out, chosen, _options(0))))
    if not _DRY_RUN.value and (place == "local" or "://" not in out):
        sweeps.write_or_check_sweep(out, file, made)
    if place != "local":
        job = _there(out, file, sweeps.unfinished_trials(out, chosen))
        sys.exit(sweep_jobs.submit(place, job, dry_run=_DRY_RUN.value))
    how = (_JOBS.value, _RETRIES.value or 0, _options(0))
    trials.raise_failures(out, trials.run(out, chosen, *how, alone=bool(_TRIAL.value)))


if __name__ == "__main__":
    cli.run(main, "a sweep's file")
