"""Run several trials at a time, each stage by the ordinary commands in its own process.

A stage is protected by a lock that its commands inherit. If a sweep alone is killed, the
next sweep therefore waits for the commands that still run, instead of starting them twice.
"""

import contextlib
import datetime
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from etils import epath

from ul.checkpoints.reading import verified_steps
from ul.core import files
from ul.core.errors import CheckpointError, Preempted, StorageError, WorkdirInUse
from ul.sweeps import devices, records
from ul.sweeps import execution as trial_execution
from ul.sweeps.execution import Commands, EvaluationWait, TrialExecution
from ul.sweeps.expand import Trial, TrialStage
from ul.sweeps.table import StatusTable

PREEMPTED = Preempted.code
SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL_SECONDS = 0.2
# A terminal signals this process and its children, which may pass the signal on; a second
# signal counts as another one only after this time.
SAME_SIGNAL_SECONDS = 1.0


def train_command(out: str, stage: TrialStage, options: Sequence[str]) -> list[str]:
    """Return the train command of a stage, without the interpreter."""
    words = ["ul", "train", "--config", stage.config]
    words += ["--workdir", f"{out}/{stage.workdir}"]
    if stage.stage1_workdir:
        words.append(f"--config.stage1.workdir={out}/{stage.stage1_workdir}")
    for key, value in stage.overrides.items():
        words.append(f"--config.{key}={tuple(value) if type(value) is list else value}")
    return words + list(options)


def evaluate_command(out: str, stage: TrialStage) -> list[str]:
    """Return the evaluate command of a stage, without the interpreter."""
    return ["ul", "evaluate", "--workdir", f"{out}/{stage.workdir}"]


def command_lines(
    out: str, trials: Sequence[Trial], options: Sequence[str]
) -> list[str]:
    """Return the shell commands that run the trials on this machine."""
    commands = [
        command
        for trial in trials
        for stage in trial.stages
        for command in (
            train_command(out, stage, options),
            evaluate_command(out, stage),
        )
    ]
    lines = [shlex.join(["python", "-m", *command]) for command in commands]
    return list(dict.fromkeys(lines))  # A shared stage 1 runs once.


class SweepRunner:
    """Runs trials to their ends; the failure of one trial does not stop the others.

    should_retry: whether a command with this exit code may succeed if it is run again.
    jobs: number of trials at a time.
    retries: how often a trial is run again.
    options: further flags of every train command.
    log_to_files: write the commands' output into one file per trial and show a table;
      otherwise the output goes to the terminal.
    is_first: of the processes that run one trial together, the first one evaluates and
      writes the records.
    """

    def __init__(
        self,
        out: str,
        trials: Sequence[Trial],
        *,
        should_retry: Callable[[int], bool],
        jobs: int = 1,
        retries: int = 0,
        options: Sequence[str] = (),
        log_to_files: bool = True,
        is_first: bool = True,
    ):
        is_bucket = "://" in out
        self._out = out if is_bucket else os.path.abspath(out)
        self._path = epath.Path(self._out)
        self._should_retry, self._options = should_retry, options
        self._is_first = is_first
        self._jobs = max(min(jobs, len(trials)), 1)
        gpus = devices.local_gpus() if self._jobs > 1 else []
        self._environments = devices.environments(gpus, self._jobs)
        self._log_directory = None
        if log_to_files:
            local = Path("runs/logs", self._path.name) if is_bucket else Path(out)
            self._log_directory = local
        self.executions = [TrialExecution(trial, retries) for trial in trials]
        self._table = StatusTable(self._path, enabled=log_to_files)
        self._held: set[str] = set()
        self._stopped_at = float("inf")
        self._kill = False

    @property
    def stopped(self) -> bool:
        """Whether a signal asked the sweep to stop."""
        return self._stopped_at != float("inf")

    def log_path(self, trial: str) -> Path | None:
        """Return the file with the output of a trial's commands; None for the terminal."""
        return self._log_directory / f"{trial}.log" if self._log_directory else None

    def run(self) -> dict[str, int]:
        """Run all trials; return the exit codes of those that did not succeed.

        The exit code of a trial that a signal interrupted is 75.
        """
        previous_handlers = {n: signal.signal(n, self._handle) for n in SIGNALS}
        try:
            for execution in self.executions:
                if records.is_trial_finished(self._path, execution.trial):
                    execution.status, execution.exit_code = "done", 0
            while self._update():
                self._table.show(self.executions)
                time.sleep(POLL_SECONDS)
            self._table.show(self.executions, last=True)
        finally:
            for execution in self.executions:
                if execution.command is not None:  # Only after an unexpected error.
                    execution.command.send_signal(signal.SIGTERM)
            for n, handler in previous_handlers.items():
                signal.signal(n, handler)
        codes = {e.trial.name: e.exit_code for e in self.executions}
        return {n: PREEMPTED if c is None else c for n, c in codes.items() if c != 0}

    def _handle(self, number: int, frame) -> None:
        now = time.monotonic()
        self._kill |= now - self._stopped_at > SAME_SIGNAL_SECONDS
        self._stopped_at = min(self._stopped_at, now)

    def _update(self) -> bool:
        """Poll the running commands and start new ones; return False once all have ended."""
        for execution in self.executions:
            if execution.command is not None:
                self._poll_command(execution)
        if self.stopped:
            return any(e.command for e in self.executions)
        for execution in self.executions:
            if execution.exit_code is not None or execution.command:
                continue
            taken = {e.slot for e in self.executions if e.command is not None}
            free = sorted(set(range(self._jobs)) - taken)
            if free and execution.not_before <= time.monotonic():
                execution.slot = free[0]
                execution.commands = self._commands(execution)
                self._advance(execution, None)
        return any(e.exit_code is None for e in self.executions)

    def _poll_command(self, execution: TrialExecution) -> None:
        """Pass on a signal, and start the next command if this one has ended."""
        assert execution.command is not None
        if self.stopped and (self._kill or not execution.was_signaled):
            number = signal.SIGKILL if self._kill else signal.SIGTERM
            execution.command.send_signal(number)
            execution.was_signaled = True
        code = execution.command.poll()
        if code is not None:
            self._advance(execution, 128 - code if code < 0 else code)

    def _advance(self, execution: TrialExecution, code: int | None) -> None:
        """Pass the exit code of the last command to the trial, and start its next one."""
        execution.command, execution.was_signaled = None, False
        assert execution.commands
        try:
            execution.command = execution.commands.send(code)
        except StopIteration as end:
            self._end(execution, end.value)
        except StorageError as e:
            print(f"{execution.trial.name}: {e}", file=sys.stderr)
            self._end(execution, e.code)

    def _end(self, execution: TrialExecution, code: int) -> None:
        """Record how a trial ended, and whether it starts again."""
        if code == 0:
            execution.status, execution.exit_code = "done", 0
        elif self.stopped:
            execution.status = "interrupted"
        elif code == WorkdirInUse.code:
            execution.status = "in use elsewhere"
            execution.not_before = time.monotonic() + trial_execution.RECHECK_SECONDS
        elif self._should_retry(code) and execution.retries_left:
            execution.retries_left -= 1
            execution.status = f"retry after exit code {code}"
        else:
            execution.status = f"failed with exit code {code}"
            execution.exit_code = code

    def _commands(self, execution: TrialExecution) -> Commands:
        """Yield the commands of a trial, one after the other."""
        for i, stage in enumerate(execution.trial.stages):
            execution.stage_index = i
            if self._is_finished(stage):
                continue
            with self._hold(stage) as descriptors:
                if descriptors is None:
                    return WorkdirInUse.code
                if self._is_finished(stage):
                    continue
                train = train_command(self._out, stage, self._options)
                code = yield self._start(execution, "training", train, descriptors)
                if code or self.stopped:
                    return code or PREEMPTED
                if stage.steps not in verified_steps(self._path / stage.workdir):
                    print(
                        f"{execution.trial.name}: {stage.workdir} must have a verified "
                        f"checkpoint of step {stage.steps} after training, but has none; "
                        "see the output of its training.",
                        file=sys.stderr,
                    )
                    return CheckpointError.code
                if self._is_first:
                    evaluate = evaluate_command(self._out, stage)
                    code = yield self._start(
                        execution, "evaluating", evaluate, descriptors
                    )
                    if code:
                        return code
                    records.mark_stage_finished(self._path, stage, stage.steps)
                else:
                    execution.status = "waiting for the evaluation"
                    code = yield EvaluationWait(
                        functools.partial(self._is_finished, stage)
                    )
                if code or self.stopped:
                    return code or PREEMPTED
        if self._is_first:
            records.mark_trial_finished(self._path, execution.trial)
        return 0

    def _is_finished(self, stage: TrialStage) -> bool:
        """Whether a stage is finished and the checkpoint for stage 2 still exists."""
        steps = verified_steps(self._path / stage.workdir)
        return records.is_stage_finished(self._path, stage) and stage.steps in steps

    @contextlib.contextmanager
    def _hold(self, stage: TrialStage) -> Iterator[tuple[int, ...] | None]:
        """Hold the lock of a stage; yield the descriptors that its commands inherit.

        Yields None if another trial or another process holds the stage.
        """
        if stage.workdir in self._held:
            yield None
            return
        descriptors: tuple[int, ...] = ()
        # Object stores have no locks. Of several processes the first holds it for all.
        if "://" not in self._out and self._is_first:
            descriptor = files.lock(Path(self._out, f"{stage.workdir}.lock"))
            if descriptor is None:
                yield None
                return
            descriptors = (descriptor,)
        self._held.add(stage.workdir)
        try:
            yield descriptors
        finally:
            self._held.remove(stage.workdir)
            for descriptor in descriptors:
                os.close(descriptor)

    def _start(
        self,
        execution: TrialExecution,
        status: str,
        command: list[str],
        descriptors: tuple[int, ...],
    ) -> subprocess.Popen:
        execution.status = status
        words = [sys.executable, "-m", *command]
        environment = os.environ | self._environments[execution.slot]
        path = self.log_path(execution.trial.name)
        if path is None:
            return subprocess.Popen(words, env=environment, pass_fds=descriptors)
        try:
            with files.open_to_append(epath.Path(path)) as log:
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                log.write(f"{now} {shlex.join(words)}\n".encode())
                log.flush()
                return subprocess.Popen(
                    words,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    pass_fds=descriptors,
                )
        except OSError as e:
            raise files.write_error(path, e) from e
