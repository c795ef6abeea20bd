"""Processes that live and end together."""

import signal
import subprocess
import sys
import time

from launch.local.processes import Process, show

PREEMPTED = 75


class Group:
    """Runs all to their end; `code` is the first failing one's, or 0.

    When one fails the others get SIGTERM, and `grace` seconds later SIGKILL. After code
    75 they are saving as well, and a second signal would stop that: they get the time
    alone. Our own first SIGTERM or Ctrl-C goes to all, a second one kills all.
    """

    def __init__(self) -> None:
        self.code = 0
        self.stopped = False
        self._running: list[subprocess.Popen] = []
        self._deadline = float("inf")

    def _send(self, number: int) -> None:
        for process in self._running:
            process.send_signal(number)  # none if it has ended

    def _handle(self, number: int, frame) -> None:
        self._send(signal.SIGKILL if self.stopped else number)
        self.stopped = True

    def _look(self, processes: list[Process], grace: float) -> None:
        codes = [p.poll() for p in self._running]
        failed = [i for i, code in enumerate(codes) if code]
        if failed and not self.code:
            i, code = failed[0], int(codes[failed[0]] or 0)
            self.code = 128 - code if code < 0 else code
            how = f" ({signal.Signals(-code).name})" if code < 0 else ""
            log = processes[i].log
            print(
                f"process {i}: exit code {self.code}{how}; log: {log}", file=sys.stderr
            )
            self._deadline = time.monotonic() + grace
            if self.code != PREEMPTED and not self.stopped:
                self._send(signal.SIGTERM)
        if time.monotonic() > self._deadline:
            self._send(signal.SIGKILL)

    def run(self, processes: list[Process], grace: float) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {n: signal.signal(n, self._handle) for n in numbers}
        try:
            log = processes[0].log
            seen = log.stat().st_size if log.exists() else 0
            self._running += [p.start() for p in processes]
            alive = True
            while alive:
                # Asked first: of what has ended by now, the rest is seen below.
                alive = any(p.poll() is None for p in self._running)
                self._look(processes, grace)
                seen += show(log, seen)
                time.sleep(0.1 * alive)
        finally:
            self._send(signal.SIGKILL)
            for n, handler in before.items():
                signal.signal(n, handler)
