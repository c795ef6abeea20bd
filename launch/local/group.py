"""Processes that start and end together."""

import signal
import subprocess
import sys
import time

from launch.local.processes import LocalProcess, copy_to_terminal
from ul.core.errors import Preempted

POLL_SECONDS = 0.1


class ProcessGroup:
    """Run all processes to their end.

    When one fails, the others get SIGTERM, and SIGKILL `grace` seconds later. After exit
    code 75 the others are saving too, and a second signal would stop that, so they only
    get the time. The launcher passes its own first SIGTERM or Ctrl-C on to all; a second
    one kills all.

    code: the exit code of the first process that failed, or 0.
    stopped: whether the launcher got a signal.
    """

    def __init__(self) -> None:
        self.code = 0
        self.stopped = False
        self._running: list[subprocess.Popen] = []
        self._deadline = float("inf")

    def _send(self, number: int) -> None:
        for process in self._running:
            process.send_signal(number)  # does nothing if the process has ended

    def _check(self, processes: list[LocalProcess], grace: float) -> None:
        codes = [process.poll() for process in self._running]
        failed = [i for i, code in enumerate(codes) if code]
        if failed and not self.code:
            i, code = failed[0], int(codes[failed[0]] or 0)
            self.code = 128 - code if code < 0 else code
            reason = f" ({signal.Signals(-code).name})" if code < 0 else ""
            log = processes[i].log
            print(
                f"process {i}: exit code {self.code}{reason}; log: {log}",
                file=sys.stderr,
            )
            self._deadline = time.monotonic() + grace
            if self.code != Preempted.code and not self.stopped:
                self._send(signal.SIGTERM)
        if time.monotonic() > self._deadline:
            self._send(signal.SIGKILL)

    def run(self, processes: list[LocalProcess], grace: float) -> None:
        """Start the processes, show the output of the first one, and wait for all."""
        # A signal may arrive before all processes are started, so it is passed on below.
        received: list[int] = []
        handlers = {
            number: signal.signal(number, lambda number, _: received.append(number))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            shown = log.stat().st_size if (log := processes[0].log).exists() else 0
            self._running += [process.start() for process in processes]
            alive = True
            while alive:
                while received:
                    number = received.pop(0)
                    self._send(signal.SIGKILL if self.stopped else number)
                    self.stopped = True
                # Before the log is read: what an ended process wrote is shown below.
                alive = any(process.poll() is None for process in self._running)
                self._check(processes, grace)
                shown += copy_to_terminal(log, shown)
                time.sleep(POLL_SECONDS * alive)
        finally:
            self.stopped |= bool(received)
            self._send(signal.SIGKILL)
            for number, handler in handlers.items():
                signal.signal(number, handler)
