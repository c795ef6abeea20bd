"""This machine: N processes on CPU devices or GPUs; if one fails, all are ended."""

import dataclasses
import sys

from launch.lib.exit_codes import run_again
from launch.lib.jobs import Job
from launch.lib.place import Place, setting
from launch.local.group import ProcessGroup
from launch.local.processes import LocalProcess, free_port
from ul.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class LocalPlace(Place):
    """Run all processes of a job here and wait for them."""

    SUBMIT_COMMAND = ("bash", "commands.sh")
    PYTHON = sys.executable

    processes: int = setting(1, "Number of processes.")
    devices_per_process: int = setting(
        0, "Devices of each process: CPU devices, or GPUs with --devices=gpu:N."
    )
    port: int = setting(0, "Port of the coordinator; 0 means a free one.")
    grace_seconds: int = setting(30, "Seconds from SIGTERM to SIGKILL after a failure.")
    retries: int = setting(
        0, "How often the job is run again after an exit code that allows it."
    )

    def __post_init__(self) -> None:
        if self.processes < 1 or self.devices_per_process < 0:
            raise ConfigError(
                "--processes must be at least 1 and --devices_per_process at least 0; "
                f"got {self.processes} and {self.devices_per_process}."
            )

    @property
    def devices(self) -> str:
        """Return the number of devices, of any platform, unless one process uses all."""
        count = self.processes * (self.devices_per_process or self.processes > 1)
        return f":{count}" if count else ""

    def _environment(self, job: Job, i: int) -> dict[str, str]:
        if not self.devices:
            return {}
        count = self.devices_per_process or 1
        if any(option.startswith("--devices=gpu") for option in job.options):
            ids = range(i * count, (i + 1) * count)
            return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, ids))}
        return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}

    def _processes(self, job: Job) -> list[LocalProcess]:
        count, port = self.processes, self.port or free_port()
        shared = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
        processes = []
        for i in range(count):
            place_flags = [*shared, f"--process_id={i}"] if count > 1 else []
            log = job.log_dir() / f"process-{i}.log"
            environment = self._environment(job, i)
            command = job.command(*place_flags)
            processes.append(LocalProcess(command, environment, log))
        return processes

    def render(self, job: Job) -> dict[str, str]:
        """Return a shell script with the command of every process."""
        commands = [process.shell_line() for process in self._processes(job)]
        lines = ["#!/usr/bin/env bash", *commands, "wait", ""]
        return {"commands.sh": "\n".join(lines)}

    def submit(self, job: Job) -> int:
        """Run the job to its end and return its exit code."""
        for attempt in range(self.retries + 1):
            group = ProcessGroup()
            group.run(self._processes(job), self.grace_seconds)
            if group.stopped or not run_again(group.code):
                break
            if attempt < self.retries:
                print(f"Retry {attempt + 1} of {self.retries}.", file=sys.stderr)
        return group.code
