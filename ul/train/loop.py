"""The loop: batches in, a trained state out. It knows no stage.

Order after each step: log, look, save, stop. What is logged and drawn at a step
belongs to the parameters saved at that step.
"""

import dataclasses
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from ul.checkpoints.store import Checkpoints
from ul.core import mesh as meshes
from ul.core import processes
from ul.core.errors import ConfigError, Interrupted, NonFiniteError, Preempted
from ul.core.metrics import Moments, merge
from ul.train import state as states
from ul.train import step as steps
from ul.train.guard import Ballot, Guard
from ul.train.writer import Silent, Writer

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class Update:
    """What one update is made of: the part of a run that needs no data.

    init() -> params. objective(params, batch, key, step) -> Terms.
    """

    init: Callable[[], Any]
    objective: Callable
    tx: optax.GradientTransformation
    lr: optax.Schedule
    root: Any
    mesh: jax.sharding.Mesh
    decays: tuple[float | str, ...]
    accumulate: int


@dataclasses.dataclass(frozen=True)
class Run(Update):
    """Everything the loop needs. A stage is an objective, an `init` and a `prepare`.

    batches(start, stop) -> this process's rows of host batches.
    prepare(global batch, step) -> objective's.
    validate(params, check) -> (scalars, pictures), what to log and draw every `validate_every`;
    it calls `check()` between its parts.
    data: a digest of the examples that training gets.
    """

    batches: Callable[[int, int], Iterator[dict[str, np.ndarray]]]
    prepare: Callable[[dict, int], dict]
    validate: Callable[..., tuple[dict[str, float], dict[str, np.ndarray]]]
    data: str
    steps: int
    batch_size: int
    pixels: int
    rate_floor_bpp: float
    log_every: int
    validate_every: int
    save_every: int
    save_minutes: float


def readable(seen: dict[str, Moments], pixels: int) -> dict[str, float]:
    """Accumulators to what people read: nats to bits per pixel, moments to a std."""
    mean = {k: float(m.compute()) for k, m in seen.items()}
    values = {}
    for name, value in mean.items():
        if name.endswith("_nats"):
            values[name.removesuffix("_nats") + "_bpp"] = value / (pixels * math.log(2))
        else:
            values[name] = value
    square = values.pop("latent_square", None)
    if square is not None:
        center = values.pop("latent_mean")
        values["latent_std"] = math.sqrt(max(square - center**2, 0.0))
    return values


class Log:
    """Means over the steps since the last line, fetched one step late.

    The devices already work on the next step while the host reads.
    """

    def __init__(self, run: Run, writer: Writer | Silent, start: int):
        self._run, self.writer = run, writer
        self._seen: dict[str, Moments] | None = None
        self._due: tuple[int, dict[str, Moments]] | None = None
        self._since = (start, time.monotonic())
        self._merge = jax.jit(merge)
        self._low = False
        self.bar = tqdm(
            total=run.steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            disable=not processes.is_first(),
        )

    def add(self, step: int, seen: dict[str, Moments]) -> None:
        self.flush()
        self._seen = seen if self._seen is None else self._merge(self._seen, seen)
        if step % self._run.log_every == 0 or step == self._run.steps:
            self._due, self._seen = (step, self._seen), None
        self.bar.update(1)

    def flush(self) -> None:
        """Write the line that is due.

        Raises:
          NonFiniteError: naming the terms; the state was not updated by them.
        """
        if self._due is None:
            return
        (step, seen), self._due = self._due, None
        values = readable(jax.device_get(seen), self._run.pixels)
        broken = [k for k, v in values.items() if not math.isfinite(v)]
        if broken:
            raise NonFiniteError(
                f"not finite by step {step}: {', '.join(broken)}; the last checkpoint "
                "is from before; lower optimizer.lr or look at the data"
            )
        now, (since, then) = time.monotonic(), self._since
        self._since = (step, now)
        values["steps_per_s"] = (step - since) / (now - then)
        values["images_per_s"] = values["steps_per_s"] * self._run.batch_size
        self.writer.scalars(step, values)
        self._alarm(step, values)
        self.bar.set_postfix(
            {"img/s": f"{values['images_per_s']:.0f}"}
            | {
                k: f"{v:.3f}"
                for k, v in values.items()
                if k in ("loss_bpp", "rate_bpp")
            }
        )

    def _alarm(self, step: int, values: dict[str, float]) -> None:
        low = values.get("rate_bpp", math.inf) < self._run.rate_floor_bpp
        if low and not self._low:
            log.warning(
                "step %d: rate %.4f bits/pixel is under loss.rate_floor_bpp %.4f: the "
                "latents are collapsing; raise loss.bias, loss.factor or loss.ramp_steps",
                step,
                values["rate_bpp"],
                self._run.rate_floor_bpp,
            )
        self._low = low

    def pause(self) -> Callable[[], None]:
        """Stop the clock of the rates; call the result to go on."""
        began = time.monotonic()

        def resume():
            step, then = self._since
            self._since = (step, then + time.monotonic() - began)

        return resume


def start(run: Run, checkpoints: Checkpoints) -> states.State:
    """The newest good checkpoint on this run's mesh, or the state before step 1."""
    abstract = states.abstract(run.init, run.tx, run.decays, run.mesh)
    log.info("%s", meshes.describe(run.mesh, abstract))
    with jax.set_mesh(run.mesh):
        state = checkpoints.resume(abstract)
    if state is not None:
        log.info("resumed at step %d", int(state.step))
        return state
    return states.initialise(run.init, run.tx, run.decays, run.mesh)


def lower(run: Update, state, batch) -> jax.stages.Lowered:
    """The update that `train` runs, lowered for this state and batch, or their shapes."""
    step = steps.make(
        run.objective, run.tx, run.lr, root=run.root, accumulate=run.accumulate
    )
    # The state comes out as it lies: the next step takes it as it is.
    out = (jax.tree.map(lambda leaf: leaf.sharding, state), meshes.replicated(run.mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(state, batch)


class Profile:
    """A trace of the steps first .. last in workdir/profile; none when both are 0."""

    def __init__(self, workdir, first: int, last: int):
        if last < first or first < 0:
            raise ConfigError(
                f"profile steps {first}:{last}: the first comes after the last"
            )
        self._path, self._first, self._last = f"{workdir}/profile", first, last
        self._running = False

    def before(self, step: int) -> None:
        if self._last and step == self._first:
            options = jax.profiler.ProfileOptions()
            # The Python tracer hooks every thread; with readers running it crashed once.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._path, profiler_options=options)
            self._running = True

    def after(self, step: int, state) -> None:
        if self._running and step == self._last:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Write what was traced, also when the run ends early."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


def train(
    run: Run,
    checkpoints: Checkpoints,
    open_writer: Callable[[int], Writer | Silent],
    guard: Guard,
    profile: Profile,
) -> states.State:
    """Train until `run.steps`, from wherever the checkpoints are.

    `open_writer(step)`: the writer of a run that goes on from `step`.

    Raises:
      Preempted: after a stop was asked for, with the state saved.
      NonFiniteError, StorageError, CheckpointError, DataError: as they say.
    """
    guard.enter("restore")
    state = start(run, checkpoints)
    first = int(state.step)
    writer = open_writer(first)
    writer.parameters(state.params)
    saver = Saver(run, checkpoints, Log(run, writer, first), guard, first)
    lines, ballot, step_fn = saver.lines, Ballot(run.mesh, guard), None
    guard.enter("compile")

    with jax.set_mesh(run.mesh), lines.bar:
        for step, batch in enumerate(run.batches(first, run.steps), first + 1):
            profile.before(step)
            whole = meshes.to_global(run.mesh, batch, run.batch_size)
            ready = run.prepare(whole, step)
            if step_fn is None:
                step_fn = compiled(run, state, ready)
            state, seen = step_fn(state, ready)
            asked = ballot.vote(late=saver.late())
            if step == first + 2:
                guard.enter("step")  # the first is done: from here a stop saves
            guard.beat(f"step {step}")
            lines.add(step, seen)
            checkpoints.poll()
            profile.after(step, state)
            stop = asked.stop
            if not stop and (step % run.validate_every == 0 or step == run.steps):
                stop = validate(run, state, saver, ballot, step)
            if asked.save or step % run.save_every == 0:
                saver.save(step, state)
            if stop and step < run.steps:
                saver.finish(step, state)
                raise Preempted(
                    f"{guard.reason} at step {step}, saved; run the same command to go on"
                )
        if first < run.steps:
            saver.finish(run.steps, state)
        lines.flush()
    writer.close()
    return state


def compiled(run: Run, state: states.State, batch: dict) -> jax.stages.Compiled:
    """The update, compiled; the log says for how long, and what memory it takes."""
    log.info("compiling the step")
    began = time.monotonic()
    made = lower(run, state, batch).compile()
    memory = made.memory_analysis()
    peak = getattr(memory, "peak_memory_in_bytes", 0) / 2**20
    seconds = time.monotonic() - began
    log.info("compiled in %.1f s; a step peaks at %.1f MiB a device", seconds, peak)
    return made


class Saver:
    """When to save, and the order: what is logged belongs to what is saved."""

    def __init__(
        self, run: Run, checkpoints: Checkpoints, lines: Log, guard: Guard, step: int
    ):
        self.lines = lines
        self._run, self._checkpoints, self._guard = run, checkpoints, guard
        self._at, self._when = step, time.monotonic()

    def late(self) -> bool:
        """The last save is `save_minutes` ago."""
        return (time.monotonic() - self._when) / 60.0 >= self._run.save_minutes

    def save(self, step: int, state: states.State) -> None:
        with self._guard.phase("save"):
            self.lines.flush()
            count_updates(state, step)
            self._checkpoints.save(step, state)
        self._at, self._when = step, time.monotonic()

    def finish(self, step: int, state: states.State) -> None:
        """This step is saved and committed."""
        if self._at != step:
            self.save(step, state)
        with self._guard.phase("save"):
            self._checkpoints.wait()


def count_updates(state: states.State, step: int) -> None:
    """Before a save: the state must have taken every one of `step` updates.

    Raises:
      NonFiniteError: some were refused since the last log line.
    """
    refused = step - int(state.step)
    if refused:
        raise NonFiniteError(
            f"{refused} updates up to step {step} were not finite; the last checkpoint "
            "is from before; lower optimizer.lr or look at the data"
        )


def validate(run: Run, state: states.State, saver: Saver, ballot: Ballot, step) -> bool:
    """Log and draw what the first EMA weights give; True if a stop broke it off."""
    lines, weights = saver.lines, state.ema[str(run.decays[0])]
    lines.flush()
    resume_clock = lines.pause()
    log.info("looking at step %d", step)
    try:
        with ballot.guard.phase("evaluation"):
            scalars, pictures = run.validate(weights, ballot.check)
    except Interrupted:
        return True
    finally:
        resume_clock()
    if scalars:
        lines.writer.scalars(step, scalars)
    for name, picture in pictures.items():
        lines.writer.image(step, name, picture)
    return False
