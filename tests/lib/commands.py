"""The project's commands as a user runs them: started, watched, read afterwards."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.lib import forks

ROOT = Path(__file__).parents[2]
DIGITS = "experiments/digits.py"


class Commands:
    """Runs `python -m ul <command>`: to its end in a fork, or as a process of its own."""

    def _environment(self, devices, more=None):
        return (
            os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "PYTHONPATH": str(ROOT),
            }
            | (more or {})
        )

    def start(self, module, *args, devices=1, prefix=(), **more):
        """Return a process that the test may stop or kill."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "ul", module, *map(str, args)],
            cwd=ROOT,
            # A killed process could leave half a program in the compilation cache.
            env=self._environment(devices, more.pop("env", None))
            | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"},
            stdout=more.pop("stdout", subprocess.PIPE),
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, module, *args, code=0, devices=1, env=None, file_bytes=None):
        """Return the output, standard error included, of a command that ends with `code`.

        file_bytes: no file may grow beyond this size.
        """
        done = forks.server().run(
            (module, *args),
            env=self._environment(devices, env),
            one_output=True,
            file_bytes=file_bytes,
        )
        assert done.code == code, done.out
        return done.out


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Together:
    """The processes of one run, each with its log in `logs`."""

    def __init__(
        self, commands: Commands, count: int, logs: Path, *args, own=(), **how
    ):
        """`own[i]`: what process i alone is told."""
        meet = f"--coordinator=127.0.0.1:{free_port()}"
        self.logs = [logs.with_name(f"{logs.name}-{i}.log") for i in range(count)]
        self.processes = []
        for i, log in enumerate(self.logs):
            told = (meet, f"--num_processes={count}", f"--process_id={i}")
            told += own[i] if own else ()
            with log.open("w") as file:
                made = commands.start(*args, *told, stdout=file, **how)
            self.processes.append(made)

    def wait(self, *codes: int) -> list[str]:
        """Their logs, once all have ended, with these exit codes."""
        try:
            for process in self.processes:
                process.wait(timeout=300)
        finally:
            self.kill()
        texts = [log.read_text() for log in self.logs]
        assert [p.returncode for p in self.processes] == list(codes), texts
        return texts

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()


def wait_for(path: Path, text: str, process, timeout=300):
    """Until a file has `text`."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.02)
    found = path.read_text() if path.exists() else "no such file"
    raise AssertionError(f"{text!r} never came (exit {process.poll()}): {found}")


def stage1(workdir, *changes, variant="smoke"):
    quiet = ("--config.log.tensorboard=false",)
    return (
        "train",
        f"--config={DIGITS}:{variant}",
        f"--workdir={workdir}",
        *quiet,
        *changes,
    )


def digests(workdir, step=8):
    return json.loads((workdir / "verified" / f"{step}.json").read_text())["digests"]


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def _poll(process, what, found, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        try:
            if found():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"{what} never came; exit code {process.poll()}")


def wait_for_step(process, workdir, step, timeout=300):
    """Until the run has logged `step`."""
    _poll(
        process,
        f"step {step}",
        lambda: any(line["step"] >= step for line in lines(workdir)),
        timeout,
    )


def wait_for_checkpoint(process, workdir, step, timeout=300):
    """Until the checkpoint of `step` is verified: what a kill leaves to resume from."""
    path = workdir / "verified" / f"{step}.json"
    _poll(process, f"checkpoint {step}", path.exists, timeout)
