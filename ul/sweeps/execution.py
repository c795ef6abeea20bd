"""The execution of one trial: its status, its current stage and the command that runs."""

import dataclasses
import subprocess
import time
from collections.abc import Callable, Generator

from ul.sweeps.expand import Trial

# A stage that another process holds is checked again after this time.
RECHECK_SECONDS = 5.0


class EvaluationWait:
    """Takes the place of a command in processes that do not evaluate.

    It ends with exit code 0 once the evaluating process has finished the stage.
    """

    def __init__(self, is_finished: Callable[[], bool]):
        self._is_finished, self._exit_code, self._next_check = is_finished, 0, 0.0

    def poll(self) -> int | None:
        """Return the exit code, or None while the stage is unfinished."""
        if self._exit_code:
            return self._exit_code
        if time.monotonic() < self._next_check:
            return None
        self._next_check = time.monotonic() + RECHECK_SECONDS
        return 0 if self._is_finished() else None

    def send_signal(self, number: int) -> None:
        """End with the exit code of a command that this signal killed."""
        self._exit_code = 128 + number


Command = subprocess.Popen | EvaluationWait
# Yields a running command, receives its exit code, returns the exit code of the trial.
Commands = Generator[Command, int | None, int]


@dataclasses.dataclass
class TrialExecution:
    """A trial and its progress.

    status: what the table shows. stage_index: the current stage. exit_code: None until the
    trial has ended. not_before: the time from which it may start (again).
    slot: index of the concurrent job, from 0, which selects its GPUs.
    """

    trial: Trial
    retries_left: int
    status: str = "waiting"
    stage_index: int = 0
    exit_code: int | None = None
    commands: Commands | None = None
    command: Command | None = None
    was_signaled: bool = False
    not_before: float = 0.0
    slot: int = 0
