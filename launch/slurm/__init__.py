"""SLURM: one process per node, or per GPU; requeued until done; sweeps as arrays."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

from launch.lib.jobs import Job, field
from launch.lib.templates import fill, quoted
from ul.core.errors import ConfigError

COMMAND = ["sbatch"]
PYTHON = sys.executable  # on a file system that the nodes share

ONE_TASK = "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"


@dataclasses.dataclass(frozen=True)
class Place:
    nodes: int = field(1, "Nodes.")
    tasks_per_node: int = field(1, "Processes a node: 1, or one a GPU.")
    gpus_per_node: int = field(0, "GPUs a node.")
    cpus_per_task: int = field(0, "CPU cores a process; the cluster's default if 0.")
    time: str = field("", "Time limit; a job that nears it saves and is requeued.")
    stop_seconds: int = field(300, "SIGTERM comes so long before the time limit.")
    partition: str = field("", "Partition.")
    account: str = field("", "Account.")
    sbatch: tuple[str, ...] = field((), "Any other option of sbatch, as --qos=high.")
    at_once: int = field(0, "Trials of a sweep at the same time; all of them if 0.")

    def __post_init__(self) -> None:
        n = self.tasks_per_node
        if n > 1 and self.gpus_per_node not in (0, n):
            raise ConfigError(
                f"--tasks_per_node is {n} and --gpus_per_node "
                f"{self.gpus_per_node}; give 1 process a node, or one a GPU"
            )

    def render(self, job: Job) -> dict[str, str]:
        limit = f"%{self.at_once}" if self.at_once else ""
        more = {
            "array": f"0-{len(job.trials) - 1}{limit}" if job.trials else "",
            "time": self.time,
            "gpus-per-node": self.gpus_per_node,
            "cpus-per-task": self.cpus_per_task,
            "partition": self.partition,
            "account": self.account,
        }
        options = [f"--{name}={value}" for name, value in more.items() if value]
        cases = [
            f"  {i}) trial=({shlex.join([f'--trial={name}'])}) ;;"
            for i, name in enumerate(job.trials)
        ]
        values = dataclasses.asdict(self) | dict(
            name=job.name,
            max_attempts=job.max_attempts,
            cwd=shlex.quote(str(Path.cwd())),
            logs=shlex.quote(str(job.logs())),
            id="%A_%a" if job.trials else "%j",
            sbatch=[f"#SBATCH {option}" for option in [*options, *self.sbatch]],
            array=[ONE_TASK] if job.trials else [],
            trials=["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]
            if job.trials
            else [],
            train=quoted(job.train()),
        )
        return {"job.sh": fill(Path(__file__).with_name("job.sh"), **values)}

    def submit(self, job: Job) -> int:
        job.logs().mkdir(parents=True, exist_ok=True)  # SLURM does not make it
        script = self.render(job)["job.sh"]
        return subprocess.run(COMMAND, input=script, text=True).returncode
