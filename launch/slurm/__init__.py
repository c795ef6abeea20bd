"""SLURM: a batch job that requeues itself until the run is done; a sweep is a job array."""

import dataclasses
import subprocess
import sys
from pathlib import Path

from launch.lib.jobs import Job
from launch.lib.place import Place, setting
from launch.lib.templates import fill
from launch.slurm.batch_script import template_values
from ul.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class SlurmPlace(Place):
    """Render a batch script and hand it to sbatch."""

    SUBMIT_COMMAND = ("sbatch",)
    PYTHON = sys.executable  # on a file system that the nodes share

    nodes: int = setting(1, "Number of nodes.")
    tasks_per_node: int = setting(
        1, "Processes of one node: 1, or as many as the node has GPUs."
    )
    gpus_per_node: int = setting(0, "GPUs of one node.")
    cpus_per_task: int = setting(
        0, "CPU cores of one process; 0 means the default of the cluster."
    )
    time: str = setting(
        "", "Time limit, for example 2-00:00:00; before it the job saves and requeues."
    )
    stop_seconds: int = setting(300, "Seconds from SIGTERM to the time limit.")
    partition: str = setting("", "Partition of the cluster.")
    account: str = setting("", "Account that is charged.")
    sbatch: tuple[str, ...] = setting(
        (), "Any other option of sbatch, for example --sbatch=--qos=high."
    )
    env: tuple[str, ...] = setting(
        (), "NAME=VALUE: an environment variable of the run; may be repeated."
    )
    at_once: int = setting(
        0, "Trials of a sweep that run at the same time; 0 means all of them."
    )

    def __post_init__(self) -> None:
        if min(self.nodes, self.tasks_per_node) < 1:
            raise ConfigError(
                "--nodes and --tasks_per_node must be at least 1; got "
                f"{self.nodes} and {self.tasks_per_node}."
            )
        if wrong := [option for option in self.sbatch if not option.startswith("-")]:
            raise ConfigError(
                f"--sbatch must be an option of sbatch, such as --qos=high; got {wrong[0]!r}."
            )
        if self.tasks_per_node > 1 and self.gpus_per_node not in (
            0,
            self.tasks_per_node,
        ):
            raise ConfigError(
                "--tasks_per_node must be 1 (one process per node) or equal to "
                f"--gpus_per_node (one process per GPU); got {self.tasks_per_node} "
                f"tasks and {self.gpus_per_node} GPUs per node."
            )

    @property
    def devices(self) -> str:
        """Return the GPUs of all nodes; nothing without --gpus_per_node."""
        return f"gpu:{self.nodes * self.gpus_per_node}" if self.gpus_per_node else ""

    def render(self, job: Job) -> dict[str, str]:
        """Return the batch script, see job.sh."""
        template = Path(__file__).with_name("job.sh")
        return {"job.sh": fill(template, **template_values(self, job))}

    def submit(self, job: Job) -> int:
        """Hand the batch script to sbatch and return its exit code."""
        job.log_dir().mkdir(parents=True, exist_ok=True)  # SLURM does not create it
        script = self.render(job)["job.sh"]
        return subprocess.run(self.SUBMIT_COMMAND, input=script, text=True).returncode
