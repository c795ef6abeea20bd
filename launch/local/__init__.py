"""This machine: N processes, on CPU devices or on GPUs; one's failure ends all."""

import dataclasses
import shlex
import socket
import sys

from launch.lib.jobs import Job, field, run_again
from launch.local.group import Group
from launch.local.processes import Process
from ul.core.errors import ConfigError

COMMAND = ["bash", "commands.sh"]
PYTHON = sys.executable


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Place:
    processes: int = field(1, "Processes.")
    devices_per_process: int = field(0, "CPU devices each; GPUs with --devices=gpu:N.")
    port: int = field(0, "The coordinator's; a free one if 0.")
    grace_seconds: int = field(
        30, "From SIGTERM to SIGKILL, once a process has failed."
    )
    retries: int = field(0, "Run again so often after an exit code that allows it.")

    def __post_init__(self) -> None:
        if self.processes < 1 or self.devices_per_process < 0:
            raise ConfigError("--processes must be at least 1, --devices_per_process 0")

    def _environment(self, job: Job, i: int) -> dict[str, str]:
        count = self.devices_per_process
        if self.processes == 1 and not count:
            return {}
        each = count or 1
        if any(option.startswith("--devices=gpu") for option in job.options):
            ids = range(i * each, (i + 1) * each)
            return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, ids))}
        return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(each)}

    def _processes(self, job: Job) -> list[Process]:
        n, place, port = self.processes, [], self.port or _free_port()
        made = []
        for i in range(n):
            if n > 1:
                place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={n}"]
                place += [f"--process_id={i}"]
            log = job.logs() / f"process-{i}.log"
            env = self._environment(job, i)
            made.append(Process(job.train(*place), env, log))
        return made

    def render(self, job: Job) -> dict[str, str]:
        lines = [
            " ".join(
                [f"{name}={value}" for name, value in p.environment.items()]
                + [shlex.join(p.command), f">>{shlex.quote(str(p.log))} 2>&1 &"]
            )
            for p in self._processes(job)
        ]
        return {
            "commands.sh": "\n".join(["#!/usr/bin/env bash", *lines, "wait"]) + "\n"
        }

    def submit(self, job: Job) -> int:
        for attempt in range(self.retries + 1):
            group = Group()
            group.run(self._processes(job), self.grace_seconds)
            if group.stopped or not run_again(group.code):
                break
            if attempt < self.retries:
                print(f"run again, {attempt + 1} of {self.retries}", file=sys.stderr)
        return group.code
