"""The training loop: batches in, a trained state out. It is the same for every stage.

Order after each step: log, validate, save, stop. What is logged and drawn at a step
belongs to the parameters that are saved at that step.
"""

import dataclasses
import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from ul.checkpoints.store import Checkpoints
from ul.core import compile_cache, processes
from ul.core import mesh as meshes
from ul.core.errors import Interrupted, NonFiniteError, Preempted
from ul.core.metrics import Moments, merge_moments
from ul.train import state as states
from ul.train import step as steps
from ul.train.collapse import CollapseWatch
from ul.train.goodput import GoodputLog
from ul.train.guard import Guard, StopConsensus, StopDecision
from ul.train.meter import Meter
from ul.train.profiler import Profiler
from ul.train.step_cache import StepCache
from ul.train.writer import MetricsWriter, NullWriter

log = logging.getLogger("ul")


@dataclasses.dataclass(frozen=True)
class UpdateSpec:
    """Everything that defines one optimizer update: the part of a run that needs no data.

    init: `init() -> params`.
    objective: `objective(params, batch, key, step) -> Terms`.
    lr: the learning rate as a function of the step. clip: the norm at which `tx` clips.
    root: the key from which all randomness of the run is derived.
    ema_names: the entries of `config.ema`, decays or "power:<width>".
    accumulate: number of microbatches per update.
    """

    init: Callable[[], Any]
    objective: Callable
    tx: optax.GradientTransformation
    lr: optax.Schedule
    clip: float
    root: Any
    mesh: jax.sharding.Mesh
    ema_names: tuple[float | str, ...]
    accumulate: int


@dataclasses.dataclass(frozen=True)
class Run(UpdateSpec):
    """Everything the loop needs, built once from a config.

    batches: `batches(start, stop)` yields this process's rows of the host batches.
    prepare: `prepare(batch, step, params) -> batch` adds what the objective takes, such as
      z_clean, to a global batch of the data pipeline; `params` are those before the step.
    validate: `validate(params, check) -> (scalars, images)` to log every `validate_every`
      steps. Scalars are in the unit of their name, such as `_bpp`; images are uint8
      [H, W, C]. It calls `check()` between its parts, which may raise Interrupted.
    data_digest: digest of the training examples and their order.
    steps, num_pixels: updates of the run; pixels of an example, for bits per pixel.
    rate_floor_bpp, ramp_steps: a rate that stays lower after the ramp ends the run as a
      posterior collapse.
    planned_rate_bpp: the rate that is predicted, shown beside the measured one.
    flops_per_step: model FLOPs of an update, and peak_flops: FLOP/s of one device; None
      if they are unknown.
    initial: returns parameters of some networks by name, with which a new run begins.
    step_cache: `step_cache(state, batch)` returns the file of the compiled step.
    """

    batches: Callable[[int, int], Iterator[dict[str, np.ndarray]]]
    prepare: Callable[[dict, int, Any], dict]
    validate: Callable[..., tuple[dict[str, float], dict[str, np.ndarray]]]
    data_digest: str
    steps: int
    batch_size: int
    num_pixels: int
    rate_floor_bpp: float
    log_every: int
    validate_every: int
    save_every: int
    save_minutes: float
    ramp_steps: int = 0
    planned_rate_bpp: float | None = None
    flops_per_step: float | None = None
    peak_flops: float | None = None
    initial: Callable[[], Mapping[str, Any]] = dict
    step_cache: Callable[..., StepCache] = functools.partial(StepCache, None, "")


def summarize_moments(moments: dict[str, Moments], num_pixels: int) -> dict[str, float]:
    """Return the values to log: means, nats as bits per pixel, and the latent std."""
    values = {}
    for name, accumulator in moments.items():
        value = float(accumulator.compute())
        if name.endswith("_nats"):
            name = f"{name.removesuffix('_nats')}_bpp"
            value /= num_pixels * math.log(2)
        values[name] = value
    square = values.pop("latent_square", None)
    if square is not None:
        center = values.pop("latent_mean")
        values["latent_std"] = math.sqrt(max(square - center**2, 0.0))
    return values


class MetricsLog:
    """Writes the means over the steps since the last line, fetched one step late.

    The devices already work on the next step while the host reads the values.
    """

    def __init__(
        self,
        run: Run,
        writer: MetricsWriter | NullWriter,
        goodput: GoodputLog,
        start_step: int,
    ):
        self._run, self.writer, self._goodput = run, writer, goodput
        self.meter = Meter(
            run.batch_size, run.mesh.size, run.flops_per_step, run.peak_flops
        )
        self._accumulated: dict[str, Moments] | None = None
        self._pending: tuple[int, dict[str, Moments]] | None = None
        self._merge = jax.jit(merge_moments)
        self._collapse = CollapseWatch(
            run.rate_floor_bpp,
            ramp_steps=run.ramp_steps,
            steps=run.steps,
            log_every=run.log_every,
        )
        self.bar = tqdm(
            total=run.steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            disable=not processes.is_first(),
        )

    def add(self, step: int, moments: dict[str, Moments]) -> None:
        """Accumulate the moments of a step, after writing the pending line."""
        self.flush()
        if self._accumulated is not None:
            moments = self._merge(self._accumulated, moments)
        self._accumulated = moments
        if step % self._run.log_every == 0 or step == self._run.steps:
            self._pending, self._accumulated = (step, moments), None
        self.bar.update(1)

    def flush(self) -> None:
        """Write the pending line, if there is one.

        Raises:
          NonFiniteError: some terms are not finite. The state was not updated by them.
          PosteriorCollapse: the rate stayed too low.
        """
        if self._pending is None:
            return
        (step, moments), self._pending = self._pending, None
        with self.meter.waiting_for_devices():
            moments = jax.device_get(moments)
        values = summarize_moments(moments, self._run.num_pixels)
        nonfinite = [name for name, value in values.items() if not math.isfinite(value)]
        if nonfinite:
            raise NonFiniteError(
                f"All metrics must be finite; up to step {step} these are not finite: "
                f"{', '.join(nonfinite)}. The last checkpoint was saved before this. Lower "
                "optimizer.lr or check the data."
            )
        values |= self.meter.measure(step)
        self._goodput.add_step(step)
        self.writer.write_scalars(step, values)
        self._collapse.add(step, values.get("rate_bpp", math.inf))
        shown = {k: f"{values[k]:.3f}" for k in values if k in ("loss_bpp", "rate_bpp")}
        if self._run.planned_rate_bpp is not None:
            shown["planned_bpp"] = f"{self._run.planned_rate_bpp:.3f}"
        if "mfu" in values:
            shown["mfu"] = f"{values['mfu']:.1%}"
        self.bar.set_postfix({"img/s": f"{values['images_per_s']:.0f}"} | shown)


def restore_or_initialize(run: Run, checkpoints: Checkpoints) -> states.TrainState:
    """Return the state of the latest checkpoint on the run's mesh, or a new state."""
    abstract = states.abstract_state(run.init, run.tx, run.ema_names, run.mesh)
    log.info("%s", meshes.sharding_table(run.mesh, abstract))
    with jax.set_mesh(run.mesh):
        state = checkpoints.restore_latest(abstract)
    if state is not None:
        log.info("resumed at step %d", int(state.step))
        return state
    state = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
    return states.replace_networks(state, run.initial())


def place_batch(
    run: Run, rows: dict[str, np.ndarray], step: int, params
) -> steps.Batch:
    """Return this process's rows of a batch as the global batch that the step takes."""
    batch = meshes.to_global(run.mesh, rows, run.batch_size)
    return run.prepare(steps.mirror_images(batch), step, params)


def lower_step(spec: UpdateSpec, state, batch) -> jax.stages.Lowered:
    """Lower the step that `train` runs, for this state and batch or for their shapes."""
    step = steps.make_train_step(
        spec.objective,
        spec.tx,
        spec.lr,
        root=spec.root,
        accumulate=spec.accumulate,
        clip=spec.clip,
    )
    # The new state keeps the sharding of the old one, so the next step needs no copy.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    out_shardings = (shardings, meshes.replicated(spec.mesh))
    jitted = jax.jit(step, donate_argnums=0, out_shardings=out_shardings)
    return jitted.lower(state, batch)


def compile_step(run: Run, state: states.TrainState, batch) -> jax.stages.Compiled:
    """Compile the step; log how long that took and how much memory the step needs."""
    log.info("compiling the train step")
    started_at, saved = time.monotonic(), compile_cache.SavedTime.seconds
    cache = run.step_cache(state, batch)
    if (compiled := cache.load()) is None:
        compiled = cache.compile(lambda: lower_step(run, state, batch))
    seconds = time.monotonic() - started_at
    saved = compile_cache.SavedTime.seconds - saved
    memory = compiled.memory_analysis()
    peak = getattr(memory, "peak_memory_in_bytes", 0) / 2**20
    log.info("compiled in %.1f s; peak memory is %.1f MiB per device", seconds, peak)
    if saved > 0.0:
        log.info("an earlier start had compiled the step, which saved %.1f s", saved)
    return compiled


def train(
    run: Run,
    checkpoints: Checkpoints,
    open_writer: Callable[[int], MetricsWriter | NullWriter],
    guard: Guard,
    profiler: Profiler,
    goodput: GoodputLog,
) -> states.TrainState:
    """Train until `run.steps`, starting from the latest checkpoint.

    `open_writer(step)` returns the writer of a run that continues from `step`.

    Raises:
      Preempted: the run was asked to stop; its state is saved.
      NonFiniteError, StorageError, CheckpointError, DataError: see their definitions.
    """
    guard.enter_phase("restore")
    state = restore_or_initialize(run, checkpoints)
    start_step = int(state.step)
    goodput.add_step(start_step)
    writer = open_writer(start_step)
    writer.write_parameters(state.params)
    metrics_log = MetricsLog(run, writer, goodput, start_step)
    saver = CheckpointSaver(run, checkpoints, metrics_log, guard, start_step)
    consensus, step_fn = StopConsensus(run.mesh, guard), None
    guard.enter_phase("compile")
    with jax.set_mesh(run.mesh), metrics_log.bar:
        meter = metrics_log.meter
        batches = meter.waiting_for_data(run.batches(start_step, run.steps))
        for step, rows in enumerate(batches, start_step + 1):
            profiler.before_step(step)
            batch = place_batch(run, rows, step, state.params)
            if step_fn is None:
                step_fn = compile_step(run, state, batch)
                metrics_log.bar.unpause()  # The time left is that of the steps.
                meter.restart(start_step)
            with meter.waiting_for_devices():
                state, moments = step_fn(state, batch)
                decision = consensus.poll(save_due=saver.is_due())
            if step == start_step + 2:
                guard.enter_phase("step")  # One step is complete: a stop now saves.
            guard.heartbeat(f"step {step}")
            metrics_log.add(step, moments)
            checkpoints.poll()
            profiler.after_step(step, state)
            stop = decision.stop
            if not stop and (step % run.validate_every == 0 or step == run.steps):
                stop = not validate(run, state, metrics_log, consensus, step)
            saver.save_if_due(step, state, decision)
            if stop and step < run.steps:
                saver.ensure_saved(step, state)
                raise Preempted(
                    f"{guard.reason}: the run was saved at step {step} and stopped. Run "
                    "the same command again to resume."
                )
        if start_step < run.steps:
            saver.ensure_saved(run.steps, state)
        metrics_log.flush()
    writer.close()
    return state


class CheckpointSaver:
    """Decides when a checkpoint is due, and logs before it saves."""

    def __init__(
        self,
        run: Run,
        checkpoints: Checkpoints,
        metrics_log: MetricsLog,
        guard: Guard,
        start_step: int,
    ):
        self._run, self._checkpoints, self._guard = run, checkpoints, guard
        self._metrics_log = metrics_log
        self._last_step, self._last_time = start_step, time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save is `save_minutes` ago."""
        return (time.monotonic() - self._last_time) / 60.0 >= self._run.save_minutes

    def is_request_open(self, step: int) -> bool:
        """Whether nothing was saved since the requests that the decision of `step` answers.

        They were made at the step before, so a save at that step has met them already.
        """
        return self._last_step < step - 1

    def save_if_due(
        self, step: int, state: states.TrainState, decision: StopDecision
    ) -> None:
        """Save at every `save_every` steps, and where the processes have agreed to."""
        is_requested = decision.save and self.is_request_open(step)
        if is_requested or step % self._run.save_every == 0:
            self.save(step, state)

    def save(self, step: int, state: states.TrainState) -> None:
        """Write the pending metrics, which may refuse the state, and start to save it."""
        self._metrics_log.flush()
        with self._guard.phase("save"), self._metrics_log.meter.paused():
            check_no_update_refused(state, step)
            self._checkpoints.save(step, state)
        self._last_step, self._last_time = step, time.monotonic()

    def ensure_saved(self, step: int, state: states.TrainState) -> None:
        """Save this step unless that was done, and wait until it is committed."""
        if self._last_step != step:
            self.save(step, state)
        with self._guard.phase("save"):
            self._checkpoints.wait()


def check_no_update_refused(state: states.TrainState, step: int) -> None:
    """Check before a save that the state has taken every one of `step` updates.

    Raises:
      NonFiniteError: some updates were not finite and left the state unchanged.
    """
    refused = step - int(state.step)
    if refused:
        raise NonFiniteError(
            f"All updates must be finite; {refused} updates up to step {step} were not "
            "finite and were not applied. The last checkpoint was saved before this. Lower "
            "optimizer.lr or check the data."
        )


def validate(
    run: Run,
    state: states.TrainState,
    metrics_log: MetricsLog,
    consensus: StopConsensus,
    step: int,
) -> bool:
    """Log scalars and images of the first average; return False if a stop interrupts."""
    params, writer = state.ema[str(run.ema_names[0])], metrics_log.writer
    metrics_log.flush()
    log.info("validating at step %d", step)
    try:
        with consensus.guard.phase("evaluation"), metrics_log.meter.paused():
            scalars, images = run.validate(params, consensus.raise_if_stopped)
    except Interrupted:
        return False
    if scalars:
        writer.write_scalars(step, scalars)
    for name, image in images.items():
        writer.write_image(step, name, image)
    return True
