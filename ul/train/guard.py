"""What ends a run from outside its loop: signals, other processes, and standing still.

One thread looks at all three, because the main thread may be inside a compile, a restore
or a collective and hear nothing. It knows the phase the run is in: before the first step
is done there is nothing to save and a signal ends the run at once; afterwards it is a
request, which the loop answers at a step that all processes agree on.
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
from collections.abc import Iterator
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
# Nothing is lost by ending in one of these.
UNSAVED = ("start", "restore", "compile")
LOOK_SECONDS = 1.0
# A terminal, a scheduler and a parent process may all pass on the same signal.
SAME_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Phase:
    name: str
    since: float


class Guard:
    """Truthy once a stop was asked for; `reason` says by what."""

    def __init__(self, workdir: str, budgets: dict[str, float]):
        """`budgets`: seconds that each phase may last without a `beat`."""
        self.reason = ""
        self._workdir, self._budgets = epath.Path(workdir), budgets
        self._phase = Phase("start", time.monotonic())
        self.place = ""
        self._first_signal = float("inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)

    def __bool__(self) -> bool:
        return bool(self.reason)

    def enter(self, phase: str) -> None:
        """The run is in this phase from here on."""
        self._phase = Phase(phase, time.monotonic())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """In this phase for a while, then in the one before."""
        before = self._phase.name
        self.enter(name)
        try:
            yield
        finally:
            self.enter(before)

    def beat(self, place: str = "") -> None:
        """Something moved; `place`: what a report says of it, as "step 5"."""
        self._phase = dataclasses.replace(self._phase, since=time.monotonic())
        self.place = place or self.place

    def __enter__(self) -> "Guard":
        # The main thread may be inside a compile or a read, so the guard's thread must
        # hear signals itself. Blocked here, and in all threads made from here on, one
        # waits for sigtimedwait; an older thread that takes it writes to the pipe.
        self._heard, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._before = {n: signal.signal(n, self._handle) for n in SIGNALS}
        self._before_wake = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._closed.set()
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.set_wakeup_fd(self._before_wake)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        """In the main thread, late. An event loop may have taken the pipe's place."""
        if signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False) != self._wake:
            self._signalled(number)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._closed.is_set():
            if found := signal.sigtimedwait(SIGNALS, 0):
                self._signalled(found.si_signo)
            if select.select([self._heard], [], [], 0.2)[0]:
                for number in os.read(self._heard, 64):
                    if number in SIGNALS:
                        self._signalled(number)
            if time.monotonic() - last >= LOOK_SECONDS:
                last = time.monotonic()
                self._look_at_others()
                self._look_at_clock()

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        if now - self._first_signal > SAME_SECONDS:
            os._exit(128 + number)
        if now >= self._first_signal:
            return
        self._first_signal = now
        self._ask(signal.Signals(number).name)

    def _ask(self, reason: str) -> None:
        """Somebody wants the run to stop."""
        self.reason = reason
        processes.post("stop", reason)
        phase = self._phase.name
        if phase in UNSAVED:
            log.warning(
                "%s during %s: nothing new to save; run the same command to go on",
                reason,
                phase,
            )
            processes.leave(Preempted.code)
        log.warning("%s: saving soon; once more to stop at once", reason)

    def _look_at_others(self) -> None:
        note = [self._phase.name, self.place, time.time()]
        processes.post("place", json.dumps(note))
        for i, text in processes.read("failed").items():
            code, _, line = text.partition(" ")
            time.sleep(LOOK_SECONDS)  # the main thread may be raising the same error
            log.error("process %d ended the run: %s", i, line)
            processes.leave(int(code))
        # In a phase that can save, the loop's vote spreads the word.
        if not self and self._phase.name in UNSAVED:
            for i, text in processes.read("stop").items():
                self._ask(text if "process" in text else f"{text} of process {i}")

    def _look_at_clock(self) -> None:
        phase = self._phase
        still = time.monotonic() - phase.since
        if still > self._budgets[phase.name]:
            self._stall(phase, still)

    def _stall(self, phase: Phase, still: float) -> NoReturn:
        place = f"{phase.name}, {self.place}" if self.place else phase.name
        line = (
            f"nothing moved for {still:.0f} s in phase {place} "
            f"(watchdog.{phase.name} is {self._budgets[phase.name]:g} s)"
        )
        others = "".join(f"; {text}" for text in self._others())
        name = f"stall-process-{processes.index()}-{int(time.time())}.txt"
        path = self._workdir / "logs" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{line}{others}\n\n{stacks()}")
            kept = f"stacks of all threads: {path}"
        except OSError as e:
            kept = f"no report, {e}"
        log.error("%s%s; %s", line, others, kept)
        processes.leave(Stalled.code, line)

    def _others(self) -> Iterator[str]:
        notes = processes.read("place")
        for i in range(processes.count()):
            if i == processes.index():
                continue
            if i not in notes:
                yield f"process {i} was never heard"
                continue
            phase, place, then = json.loads(notes[i])
            silent = time.time() - then
            moves = f"silent for {silent:.0f} s" if silent > 5 else "alive"
            yield f"process {i} is {moves}, in {phase} {place}".rstrip()


def stacks() -> str:
    """Where every thread of this process is."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


class Asked(NamedTuple):
    """stop: end after this step. save: it is time for a checkpoint."""

    stop: bool
    save: bool


class Ballot:
    """What any process asks for, as all of them see it at the same step.

    Clocks and signals differ between processes; what they do at a step may not. An
    answer of step k is read after step k + 1 was handed to the devices, so they never
    wait; reading it also tells that step k is done.
    """

    def __init__(self, mesh: jax.sharding.Mesh, guard: Guard):
        self.guard, self._mesh = guard, mesh
        self._any = jax.jit(
            lambda asked: jnp.any(asked, axis=0),
            out_shardings=meshes.replicated(mesh),
        )
        self._due: jax.Array | None = None

    def _cast(self, late: bool) -> jax.Array:
        mine = np.asarray([[bool(self.guard), late]])
        asked = jax.make_array_from_callback(
            (self._mesh.size, 2), meshes.batch_sharding(self._mesh), lambda _: mine
        )
        return self._any(asked)

    def vote(self, *, late: bool) -> Asked:
        """The answer of the step before; nothing at the first."""
        due, self._due = self._due, self._cast(late)
        return Asked(False, False) if due is None else self._read(due)

    def check(self) -> None:
        """Ask and wait for the answer: between two parts of a look.

        Raises:
          Interrupted: on all processes, for a stop was asked of one.
        """
        self.guard.beat()
        if self._read(self._cast(False)).stop:
            raise Interrupted

    def _read(self, answer: jax.Array) -> Asked:
        asked = Asked(*np.asarray(answer).tolist())
        if asked.stop and not self.guard:
            self.guard.reason = "a stop of another process"
        return asked
