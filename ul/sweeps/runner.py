"""Trials, N at a time, each stage by the ordinary commands in a process of its own.

A stage is held by a lock that its commands inherit: where a sweep alone was killed, the
next one waits for what is still running, and never starts a second beside it.
"""

import contextlib
import dataclasses
import datetime
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from etils import epath

from ul.checkpoints.store import verified_steps
from ul.core import files
from ul.core.errors import CheckpointError, Preempted, StorageError, WorkdirInUse
from ul.sweeps import records
from ul.sweeps.expand import Stage, Trial
from ul.sweeps.table import Table

PREEMPTED = Preempted.code
SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL_SECONDS = 0.2
# Until a stage that another process holds is asked for again.
IN_USE_SECONDS = 5.0
# A terminal tells us and our children; a second signal so soon is not a second wish.
ONE_WISH_SECONDS = 1.0


class Until:
    """What the processes of a trial that do not evaluate wait for."""

    def __init__(self, over: Callable[[], bool]):
        self._over, self._code, self._due = over, 0, 0.0

    def poll(self) -> int | None:
        if self._code or time.monotonic() < self._due:
            return self._code or None
        self._due = time.monotonic() + IN_USE_SECONDS
        return 0 if self._over() else None

    def send_signal(self, number: int) -> None:
        self._code = 128 + number


Task = subprocess.Popen | Until
# Yields what runs, takes its exit code, returns the trial's.
Commands = Generator[Task, int | None, int]


@dataclasses.dataclass
class Work:
    """A trial and where it stands. `state` is for people; `code` None until it ended."""

    trial: Trial
    retries: int
    state: str = "waiting"
    stage: int = 0
    code: int | None = None
    steps: "Commands | None" = None
    task: "Task | None" = None
    told: bool = False
    due: float = 0.0


def train_command(out: str, stage: Stage, options: Sequence[str]) -> list[str]:
    """The ordinary train command of a stage."""
    words = ["launch.train", "--config", stage.config]
    words += ["--workdir", f"{out}/{stage.workdir}"]
    if stage.below:
        words.append(f"--config.stage1.workdir={out}/{stage.below}")
    for key, value in stage.overrides.items():
        words.append(f"--config.{key}={tuple(value) if type(value) is list else value}")
    return words + list(options)


def lines(out: str, trials: Sequence[Trial], options: Sequence[str]) -> list[str]:
    """What running them here comes to, as a shell has it."""
    found = []
    for trial in trials:
        for stage in trial.stages:
            evaluate = ["launch.evaluate", "--workdir", f"{out}/{stage.workdir}"]
            for command in (train_command(out, stage, options), evaluate):
                found.append(shlex.join(["python", "-m", *command]))
    return list(dict.fromkeys(found))  # a shared stage 1 is run once


class Runner:
    """Runs trials to their ends; one's failure never stops the others.

    again: which exit codes may succeed when run again. options: of every train command.
    logs: a file each and a table, or all output here. first: of the processes that run one
    trial together, the one that evaluates and writes.
    """

    def __init__(
        self,
        out: str,
        trials: Sequence[Trial],
        *,
        again: Callable[[int], bool],
        jobs: int = 1,
        retries: int = 0,
        options: Sequence[str] = (),
        logs: bool = True,
        first: bool = True,
    ):
        self._out = out if "://" in out else os.path.abspath(out)
        self._path = epath.Path(self._out)
        self._again, self._jobs, self._options = again, jobs, options
        self._first = first
        self._logs = None
        if logs:
            bucket = "://" in out
            self._logs = Path("runs/logs", self._path.name) if bucket else Path(out)
        self.works = [Work(trial, retries) for trial in trials]
        self._table = Table(self._path, jobs, enabled=logs)
        self._held: set[str] = set()
        self._stopped_at = float("inf")
        self._kill = False

    @property
    def stopped(self) -> bool:
        """A signal asked for the end."""
        return self._stopped_at != float("inf")

    def log(self, trial: str) -> Path | None:
        """Where a trial's commands say what they do."""
        return self._logs / f"{trial}.log" if self._logs else None

    def run(self) -> dict[str, int]:
        """Exit codes of the trials that did not end well; 75 of those interrupted."""
        before = {n: signal.signal(n, self._handle) for n in SIGNALS}
        try:
            for work in self.works:
                if records.finished(self._path, work.trial):
                    work.state, work.code = "done", 0
            while self._turn():
                self._table.show(self.works)
                time.sleep(POLL_SECONDS)
            self._table.show(self.works, last=True)
        finally:
            for work in self.works:
                if work.task is not None:  # only after an error of our own
                    work.task.send_signal(signal.SIGTERM)
            for n, handler in before.items():
                signal.signal(n, handler)
        codes = {work.trial.name: work.code for work in self.works}
        return {n: PREEMPTED if c is None else c for n, c in codes.items() if c != 0}

    def _handle(self, number: int, frame) -> None:
        now = time.monotonic()
        self._kill |= now - self._stopped_at > ONE_WISH_SECONDS
        self._stopped_at = min(self._stopped_at, now)

    def _turn(self) -> bool:
        """Look at all that runs, start what may; False once nothing is left to do."""
        for work in [w for w in self.works if w.task]:
            assert work.task
            if self.stopped and (self._kill or not work.told):
                work.task.send_signal(signal.SIGKILL if self._kill else signal.SIGTERM)
                work.told = True
            code = work.task.poll()
            if code is not None:
                self._advance(work, 128 - code if code < 0 else code)
        if self.stopped:
            return any(work.task for work in self.works)
        waiting = [w for w in self.works if w.code is None and not w.task]
        for work in waiting:
            busy = sum(w.task is not None for w in self.works)
            if busy < self._jobs and work.due <= time.monotonic():
                work.steps = self._steps(work)
                self._advance(work, None)
        return any(work.code is None for work in self.works)

    def _advance(self, work: Work, code: int | None) -> None:
        """Hand the last command's exit code to the trial, and start its next one."""
        work.task, work.told = None, False
        assert work.steps
        try:
            work.task = work.steps.send(code)
        except StopIteration as end:
            self._ended(work, end.value)
        except StorageError as e:
            print(f"{work.trial.name}: {e}", file=sys.stderr)
            self._ended(work, e.code)

    def _ended(self, work: Work, code: int) -> None:
        if code == 0:
            work.state, work.code = "done", 0
        elif self.stopped:
            work.state = "interrupted"
        elif code == WorkdirInUse.code:
            work.state = "in use elsewhere"
            work.due = time.monotonic() + IN_USE_SECONDS
        elif self._again(code) and work.retries:
            work.retries -= 1
            work.state = f"again after {code}"
        else:
            work.state, work.code = f"failed {code}", code

    def _steps(self, work: Work) -> Commands:
        """The commands of a trial, one after the other."""
        for i, stage in enumerate(work.trial.stages):
            work.stage = i
            if self._over(stage):
                continue
            with self._claim(stage) as held:
                if held is None:
                    return WorkdirInUse.code
                if self._over(stage):
                    continue
                train = train_command(self._out, stage, self._options)
                code = yield self._start(work, "training", train, held)
                if code or self.stopped:
                    return code or PREEMPTED
                if stage.steps not in verified_steps(self._path / stage.workdir):
                    print(
                        f"{work.trial.name}: {stage.workdir} has no verified checkpoint "
                        f"of step {stage.steps}",
                        file=sys.stderr,
                    )
                    return CheckpointError.code
                if self._first:
                    where = f"{self._out}/{stage.workdir}"
                    evaluate = ["launch.evaluate", "--workdir", where]
                    code = yield self._start(work, "evaluating", evaluate, held)
                    if code:
                        return code
                    records.close_stage(self._path, stage, stage.steps)
                else:
                    work.state = "waiting for the evaluation"
                    code = yield Until(functools.partial(self._over, stage))
                if code or self.stopped:
                    return code or PREEMPTED
        if self._first:
            records.close_trial(self._path, work.trial)
        return 0

    def _over(self, stage: Stage) -> bool:
        """The stage is done, and what stage 2 would restore is still there."""
        there = verified_steps(self._path / stage.workdir)
        return records.stage_done(self._path, stage) and stage.steps in there

    @contextlib.contextmanager
    def _claim(self, stage: Stage) -> Iterator[tuple[int, ...] | None]:
        """Holds the stage: descriptors that its commands inherit; None if another does."""
        if stage.workdir in self._held:
            yield None
            return
        handles: tuple[int, ...] = ()
        # Object stores have no locks; one process of several holds it for all.
        if "://" not in self._out and self._first:
            handle = files.lock(Path(self._out, f"{stage.workdir}.lock"))
            if handle is None:
                yield None
                return
            handles = (handle,)
        self._held.add(stage.workdir)
        try:
            yield handles
        finally:
            self._held.remove(stage.workdir)
            for handle in handles:
                os.close(handle)

    def _start(
        self, work: Work, state: str, command: list[str], held: tuple[int, ...]
    ) -> subprocess.Popen:
        work.state = state
        line = [sys.executable, "-m", *command]
        path = self.log(work.trial.name)
        if path is None:
            return subprocess.Popen(line, pass_fds=held)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as log:
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                print(f"{now} {shlex.join(line)}", file=log, flush=True)
                return subprocess.Popen(line, stdout=log, stderr=log, pass_fds=held)
        except OSError as e:
            raise StorageError(f"{path} cannot be written: {e}") from e
