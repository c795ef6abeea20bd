"""Everything that ends a run from outside its loop: signals, other processes, stalls.

One thread watches all three, because the main thread may be inside a compilation, a
restore or a collective and cannot react. The thread knows the phase of the run. Before the
first step is complete there is nothing to save, so a signal ends the run at once. After
that a signal is a request: all processes agree on one step, save there and exit.
"""

import contextlib
import dataclasses
import faulthandler
import json
import logging
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ul.core import mesh as meshes
from ul.core import processes
from ul.core.errors import Interrupted, Preempted, Stalled

log = logging.getLogger("ul")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Ending the run in one of these phases loses nothing.
PHASES_BEFORE_TRAINING = ("start", "restore", "compile")
# How often the guard checks the other processes and the clock.
POLL_SECONDS = 1.0
# The terminal, the scheduler and a parent process may all deliver the same signal; a
# second signal counts as another one only after this time.
SAME_SIGNAL_SECONDS = 1.0
# A process that has posted nothing for longer is reported as silent.
SILENT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of the run and the time of its last progress, in `time.monotonic` seconds."""

    name: str
    since: float


class Guard:
    """Watches a run while it is a context manager; true once the run is asked to stop.

    reason: the signal or process that asked for the stop.
    position: the latest position in the run, such as "step 5".
    """

    def __init__(
        self,
        workdir: str,
        budgets: dict[str, float],
        on_phase: Callable[[str], None] = lambda name: None,
    ):
        """`budgets`: seconds that each phase may last without a `heartbeat`.

        `on_phase` is called with the name of each phase that begins.
        """
        self.reason = ""
        self.position = ""
        self._workdir, self._budgets = epath.Path(workdir), budgets
        self._on_phase = on_phase
        self._phase = Phase("start", time.monotonic())
        self._first_signal = float("inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)

    def __bool__(self) -> bool:
        return bool(self.reason)

    def enter_phase(self, name: str) -> None:
        """Start a phase, which lasts until the next one starts."""
        self._phase = Phase(name, time.monotonic())
        self._on_phase(name)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Start a phase, and return to the previous one at the end of the block."""
        previous = self._phase.name
        self.enter_phase(name)
        try:
            yield
        finally:
            self.enter_phase(previous)

    def heartbeat(self, position: str = "") -> None:
        """Report progress, which restarts the clock of the phase."""
        self._phase = dataclasses.replace(self._phase, since=time.monotonic())
        self.position = position or self.position

    def __enter__(self) -> "Guard":
        # The main thread may be inside a compilation or a read, so the guard's thread must
        # receive signals itself. Signals are blocked in this thread and in all threads that
        # it starts from here on, and wait for sigtimedwait. A thread that was started
        # earlier may still take a signal; Python then writes its number to the pipe.
        self._signal_pipe, self._wakeup_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        self._previous_handlers = {n: signal.signal(n, self._handle) for n in SIGNALS}
        self._previous_wakeup_fd = signal.set_wakeup_fd(
            self._wakeup_fd, warn_on_full_buffer=False
        )
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._closed.set()
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        """Handle a signal in the main thread, possibly late.

        The guard's thread has read it from the pipe already, unless an event loop has
        replaced the pipe by its own.
        """
        replaced = signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        if replaced != self._wakeup_fd:
            self._receive_signal(number)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._closed.is_set():
            if pending := signal.sigtimedwait(SIGNALS, 0):
                self._receive_signal(pending.si_signo)
            if select.select([self._signal_pipe], [], [], 0.2)[0]:
                for number in os.read(self._signal_pipe, 64):
                    if number in SIGNALS:
                        self._receive_signal(number)
            if time.monotonic() - last >= POLL_SECONDS:
                last = time.monotonic()
                self._poll_processes()
                self._check_budget()

    def _receive_signal(self, number: int) -> None:
        now = time.monotonic()
        if now - self._first_signal > SAME_SIGNAL_SECONDS:
            os._exit(128 + number)
        if now >= self._first_signal:
            return
        self._first_signal = now
        self._request_stop(signal.Signals(number).name)

    def _request_stop(self, reason: str) -> None:
        self.reason = reason
        processes.publish("stop", reason)
        phase = self._phase.name
        if phase in PHASES_BEFORE_TRAINING:
            log.warning(
                "received %s during %s: nothing new to save; run the same command again to "
                "resume",
                reason,
                phase,
            )
            processes.hard_exit(Preempted.code)
        log.warning(
            "received %s: the run will save and stop soon; send the signal once more to "
            "stop at once",
            reason,
        )

    def _poll_processes(self) -> None:
        """Tell the other processes the position of this one, and read what they posted."""
        note = [self._phase.name, self.position, time.time()]
        processes.publish("position", json.dumps(note))
        for i, text in processes.read_peers("failed").items():
            code, _, message = text.partition(" ")
            time.sleep(POLL_SECONDS)  # The main thread may be raising the same error.
            log.error("process %d ended the run: %s", i, message)
            processes.hard_exit(int(code))
        # In a phase that can save, the poll of StopConsensus spreads the request.
        if not self and self._phase.name in PHASES_BEFORE_TRAINING:
            for i, text in processes.read_peers("stop").items():
                is_forwarded = "process" in text
                self._request_stop(text if is_forwarded else f"{text} of process {i}")

    def _check_budget(self) -> None:
        phase = self._phase
        seconds = time.monotonic() - phase.since
        if seconds > self._budgets[phase.name]:
            self._stall(phase, seconds)

    def _stall(self, phase: Phase, seconds: float) -> NoReturn:
        """Write the stacks of all threads into workdir/logs and end the run."""
        position = f"{phase.name}, {self.position}" if self.position else phase.name
        message = (
            f"no progress for {seconds:.0f} s in phase {position} "
            f"(watchdog.{phase.name} allows {self._budgets[phase.name]:g} s)"
        )
        others = "".join(f"; {text}" for text in self._describe_other_processes())
        name = f"stall-process-{processes.index()}-{int(time.time())}.txt"
        path = self._workdir / "logs" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{message}{others}\n\n{thread_stacks()}")
            report = f"the stacks of all threads are in {path}"
        except OSError as e:
            report = f"the stacks of all threads cannot be written: {e}"
        log.error("%s%s; %s", message, others, report)
        processes.hard_exit(Stalled.code, message)

    def _describe_other_processes(self) -> Iterator[str]:
        notes = processes.read_peers("position")
        for i in range(processes.count()):
            if i == processes.index():
                continue
            if i not in notes:
                yield f"process {i} has never reported"
                continue
            phase, position, posted_at = json.loads(notes[i])
            silence = time.time() - posted_at
            status = (
                f"silent for {silence:.0f} s" if silence > SILENT_SECONDS else "alive"
            )
            yield f"process {i} is {status}, in {phase} {position}".rstrip()


def thread_stacks() -> str:
    """Return the stack of every thread of this process."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


class StopDecision(NamedTuple):
    """The action of all processes after a step.

    stop: end the run after this step. save: save a checkpoint.
    """

    stop: bool
    save: bool


class StopConsensus:
    """Lets all processes stop, or save, at the same step once any one of them needs to.

    Clocks and signals differ between processes, but what they do at a step may not. The
    decision of step k is read after step k + 1 was sent to the devices, so the devices
    never wait; reading it also proves that step k is complete.
    """

    def __init__(self, mesh: jax.sharding.Mesh, guard: Guard):
        self.guard, self._mesh = guard, mesh
        self._any = jax.jit(
            lambda requests: jnp.any(requests, axis=0),
            out_shardings=meshes.replicated(mesh),
        )
        self._pending: jax.Array | None = None

    def _combine(self, save_due: bool) -> jax.Array:
        """Start the reduction over the requests of all processes: [stop, save]."""
        local = np.asarray([[bool(self.guard), save_due]])
        requests = jax.make_array_from_callback(
            (self._mesh.size, 2), meshes.batch_sharding(self._mesh), lambda _: local
        )
        return self._any(requests)

    def poll(self, *, save_due: bool) -> StopDecision:
        """Submit this process's request and return the decision of the previous step.

        At the first step there is no previous one, and the decision is to go on.
        """
        previous, self._pending = self._pending, self._combine(save_due)
        return StopDecision(False, False) if previous is None else self._read(previous)

    def raise_if_stopped(self) -> None:
        """Agree on a decision now and wait for it: between two parts of a validation.

        Raises:
          Interrupted: on all processes, if any one of them was asked to stop.
        """
        self.guard.heartbeat()
        if self._read(self._combine(False)).stop:
            raise Interrupted

    def _read(self, combined: jax.Array) -> StopDecision:
        decision = StopDecision(*np.asarray(combined).tolist())
        if decision.stop and not self.guard:
            self.guard.reason = "stop request of another process"
        return decision
