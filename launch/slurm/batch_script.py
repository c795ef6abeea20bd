"""The values that fill the template job.sh."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.lib import environment
from launch.lib.jobs import SHORT_START_SECONDS, Job
from launch.lib.templates import shell_words

if TYPE_CHECKING:
    from launch.slurm import SlurmPlace

ARRAY_TASK_ID = "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"


def template_values(place: SlurmPlace, job: Job) -> dict[str, Any]:
    """Return the value of every %{name} in job.sh; a job of trials becomes an array."""
    is_array = bool(job.trials)
    return dict(
        name=job.name,
        nodes=place.nodes,
        tasks_per_node=place.tasks_per_node,
        stop_seconds=place.stop_seconds,
        max_attempts=job.max_attempts,
        short_seconds=SHORT_START_SECONDS,
        cpus=_export_cpus(place),
        env=[f"export {shlex.quote(v)}" for v in _environment(place)],
        cwd=shlex.quote(str(Path.cwd())),
        logs=shlex.quote(str(job.log_dir())),
        # SLURM fills in %j and others here, so a % of the path is doubled.
        output=shlex.quote(str(job.log_dir()).replace("%", "%%")),
        id="%A_%a" if is_array else "%j",
        sbatch=[f"#SBATCH {option}" for option in _sbatch_options(place, job)],
        array=[ARRAY_TASK_ID] if is_array else [],
        trials=_choose_trial(job.trials) if is_array else [],
        train=shell_words(job.command()),
    )


def _environment(place: SlurmPlace) -> list[str]:
    defaults = environment.GPU if place.gpus_per_node else {}
    return environment.merge(defaults, place.env)


def _export_cpus(place: SlurmPlace) -> list[str]:
    """Return the line that passes --cpus_per_task to srun, which does not inherit it."""
    return [f"export SRUN_CPUS_PER_TASK={place.cpus_per_task}"] * bool(
        place.cpus_per_task
    )


def _sbatch_options(place: SlurmPlace, job: Job) -> list[str]:
    limit = f"%{place.at_once}" if place.at_once else ""
    options = {
        "array": f"0-{len(job.trials) - 1}{limit}" if job.trials else "",
        "time": place.time,
        "gpus-per-node": place.gpus_per_node,
        "cpus-per-task": place.cpus_per_task,
        "partition": place.partition,
        "account": place.account,
    }
    arguments = [f"--{name}={value}" for name, value in options.items() if value]
    return [*arguments, *place.sbatch]


def _choose_trial(trials: tuple[str, ...]) -> list[str]:
    """Return a shell `case` that sets `trial` for every task of the array."""
    cases = [
        f"  {i}) trial=({shlex.quote(f'--trial={name}')}) ;;"
        for i, name in enumerate(trials)
    ]
    return ["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]
