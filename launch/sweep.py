"""Trials of a sweep: both stages of each, trained, verified and evaluated.

    python -m launch.sweep experiments/sweeps/bitrate.py --out runs/bitrate --jobs 2
    python -m launch.sweep FILE --out OUT --place slurm --time 8:00:00 --dry-run
    python -m launch.sweep FILE --out OUT --trial NAME     # what such a job runs

Run it again and it goes on; see launch/README.md.
"""

import sys

from absl import flags
from etils import epath

from launch import cli, cluster, files, places, sweep_jobs, trials
from ul import sweeps

_OUT = flags.DEFINE_string("out", None, "Where the runs go.")
_PLACE = flags.DEFINE_enum("place", "local", ["local", *sweep_jobs.KINDS], "Where.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials at a time, here.", lower_bound=1)
_RETRIES = flags.DEFINE_integer(
    "retries", 0, "Run a trial again so often, after an exit code that allows it.", 0
)
_TRIAL = flags.DEFINE_list("trial", [], "These alone; their output comes here.")
_SET = flags.DEFINE_multi_string("set", [], "key=value of every stage; stage2:key=...")
_ATTEMPTS = flags.DEFINE_integer(
    "max_attempts", None, "A stage stops after so many starts that saved nothing.", 0
)
_NAME = flags.DEFINE_string("name", None, "The jobs' name; the file's if unset.")
_PYTHON = flags.DEFINE_string("python", None, "Python in that place.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be run or submitted.")
flags.DEFINE_alias("dry-run", "dry_run")
places.define(*sweep_jobs.KINDS)


def _here(out: str, file: str, chosen: list[sweeps.Trial]) -> None:
    options = [f"--max_attempts={_ATTEMPTS.value or 0}", *cluster.given()]
    if _DRY_RUN.value:
        return print("\n".join(sweeps.lines(out, chosen, options)))
    failed = trials.run(
        out,
        file,
        chosen,
        at_once=_JOBS.value,
        retries=_RETRIES.value,
        options=options,
        alone=bool(_TRIAL.value),
    )
    trials.report(out, failed)


def _there(out: str, file: str, chosen: list[sweeps.Trial]) -> None:
    names = [t.name for t in chosen if not sweeps.finished(epath.Path(out), t)]
    if not names:
        return print("all trials are done")
    options = [*cluster.given(), f"--max_attempts={_ATTEMPTS.value or 5}"]
    sweep = sweep_jobs.Sweep(
        name=sweep_jobs.plain(_NAME.value or sweep_jobs.name_of(file)),
        config=file,
        workdir=out,
        overrides=tuple(f"--set={pair}" for pair in _SET.value),
        options=tuple(options),
        max_attempts=_ATTEMPTS.value or 5,
        python=_PYTHON.value or places.PLACES[_PLACE.value].PYTHON,
        trials=tuple(names),
    )
    sys.exit(sweep_jobs.submit(_PLACE.value, sweep, dry_run=_DRY_RUN.value))


def main(file: str) -> None:
    out = cli.required(_OUT)
    described = files.call("a sweep's file", file, "get_sweep")
    chosen = trials.choose(
        "--trial", trials.expand(described, _SET.value), _TRIAL.value
    )
    (_here if _PLACE.value == "local" else _there)(out, file, chosen)


if __name__ == "__main__":
    cli.run(main, "a sweep's file")
