"""Compile the real train step for devices that are not attached, and analyze it."""

import contextlib
import dataclasses
import re
import sys
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from tqdm import tqdm

from ul.core import trees
from ul.planning.pods import (
    chips,
    collectives,
    hlo,
    model_flops,
    traffic,
    vector_work,
)
from ul.planning.pods.roofline import StepTime, estimate_step_time
from ul.planning.pods.topology import Topology, assume_cudnn
from ul.runs.train_spec import TrainSpec
from ul.train import loop, state

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """Memory, traffic and communication of a compiled step, in bytes per chip and step.

    `vector_operations` are per chip and step too. `sent_bytes` and `num_collectives` are by
    kind of collective, within a slice; `network_bytes` are sent to other slices.
    `gathered_activations` describes each gather of something that is not a sharded
    parameter, and `gathered_across_slices` each gather between slices.
    """

    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    traffic_bytes: int
    vector_operations: int
    sent_bytes: dict[str, int]
    num_collectives: dict[str, int]
    gathered_activations: tuple[str, ...]
    network_bytes: int = 0
    gathered_across_slices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PodPlan:
    """One train step, compiled for one topology.

    The FLOPs are of the whole step over the global batch. `minimum_sent_bytes` is what a
    chip has to send per step within its slice, by kind of collective, and
    `minimum_network_bytes` to other slices. `peak_bytes` is what a chip needs.
    `step` is None if the step does not fit, `step_time` also if the chip's speed is unknown.
    """

    spec: TrainSpec
    topology: Topology
    num_parameters: int
    model_flops: int
    closed_form_flops: int
    computed_flops: int
    minimum_sent_bytes: dict[str, int]
    minimum_network_bytes: int = 0
    peak_bytes: int = 0
    compile_seconds: float = 0.0
    step: CompiledStep | None = None
    step_time: StepTime | None = None

    @property
    def num_chips(self) -> int:
        """Number of chips in the topology."""
        return len(self.topology.devices)

    @property
    def missing_bytes(self) -> int:
        """Bytes that a chip lacks; 0 if the step fits or the chip's memory is unknown."""
        chip = self.topology.chip
        return max(0, self.peak_bytes - round(chip.memory_gib * GIB)) if chip else 0

    @property
    def images_per_second(self) -> float:
        """Upper bound for the whole mesh; 0 if the step does not fit or has no time."""
        if self.step_time is None or self.missing_bytes:
            return 0.0
        return self.spec.batch_size / self.step_time.step


def make_plan(spec: TrainSpec, topology: Topology) -> PodPlan:
    """Lower, compile and analyze one train step.

    A step that does not fit into a chip's memory gives a plan without a compiled step.

    Raises:
      ConfigError: the mesh or the batch does not divide, or the attention is for another
        kind of device.
    """
    mesh = spec.make_mesh(topology.devices)
    update, batch = spec.make_update(mesh), spec.abstract_batch(mesh)
    abstract_state = state.abstract_state(
        update.init, update.tx, update.ema_names, mesh
    )
    # A TPU multiplies bfloat16 numbers, and gathers what it multiplies in this type.
    is_tpu = mesh.devices.flat[0].platform == "tpu"
    itemsize = 2 if is_tpu else jnp.dtype(spec.dtype).itemsize
    closed_form = model_flops.closed_form_flops(spec.stage)
    plan = PodPlan(
        spec=spec,
        topology=topology,
        num_parameters=trees.num_elements(abstract_state.params),
        model_flops=model_flops.model_flops(spec),
        closed_form_flops=closed_form.training * spec.batch_size,
        computed_flops=model_flops.computed_flops(spec),
        minimum_sent_bytes=collectives.minimum_sent_bytes(
            abstract_state.params, mesh, itemsize, topology.slices
        ),
        minimum_network_bytes=collectives.minimum_network_bytes(
            abstract_state.params, mesh, jnp.dtype(spec.dtype).itemsize, topology.slices
        ),
    )
    start = time.monotonic()
    try:
        with (
            jax.set_mesh(mesh),
            assume_cudnn(topology),
            elapsed_time_line(f"compiling for {topology.name}"),
        ):
            lowered = loop.lower_step(update, abstract_state, batch)
            compiled = lowered.compile(topology.options)
    except jax.errors.JaxRuntimeError as e:
        peak_bytes = parse_out_of_memory(str(e))
        if not peak_bytes:
            raise
        return dataclasses.replace(
            plan, peak_bytes=peak_bytes, compile_seconds=time.monotonic() - start
        )
    compile_seconds = time.monotonic() - start
    step = analyze(compiled, abstract_state.params, mesh, topology.slices)
    return dataclasses.replace(
        plan,
        peak_bytes=step.peak_bytes,
        compile_seconds=compile_seconds,
        step=step,
        step_time=_step_time(topology, plan.computed_flops, step),
    )


def analyze(
    compiled: jax.stages.Compiled, params, mesh: jax.sharding.Mesh, slices: int = 1
) -> CompiledStep:
    """Read the memory of a compiled step and its traffic from its optimized HLO."""
    program, memory = hlo.parse(compiled.as_text() or ""), compiled.memory_analysis()
    assert memory is not None
    operations = collectives.find_collectives(program, slices, mesh.size // slices)
    crossing = [c for c in operations if c.crosses_slices]
    within = [c for c in operations if not c.crosses_slices]
    by_kind = {
        kind: [c for c in within if c.kind == kind] for kind in collectives.KINDS
    }
    gathered = collectives.gathered_activations(operations, params, mesh)
    return CompiledStep(
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=peak_bytes(memory),
        traffic_bytes=traffic.memory_traffic(program),
        vector_operations=vector_work.vector_operations(program),
        sent_bytes={
            kind: sum(c.sent_bytes for c in members)
            for kind, members in by_kind.items()
        },
        num_collectives={
            kind: sum(c.count for c in members) for kind, members in by_kind.items()
        },
        gathered_activations=tuple(map(_describe_gather, gathered)),
        network_bytes=sum(c.sent_bytes for c in crossing),
        gathered_across_slices=tuple(
            _describe_gather(c) for c in crossing if c.gathered_shapes
        ),
    )


def _describe_gather(gather: collectives.Collective) -> str:
    shape = gather.gathered_shapes[0]
    return f"{shape.dtype}{list(shape.dims)} {gather.source[-40:]}"


def peak_bytes(memory) -> int:
    """Return the bytes at the fullest moment; outputs that alias arguments count once."""
    reported = getattr(memory, "peak_memory_in_bytes", 0)
    return reported or (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def parse_out_of_memory(message: str) -> int:
    """Return the bytes that the TPU compiler's error message says it needed.

    Returns 0 if the message is about another error. The two forms are "... memory required
    for ... (30.00G) exceeds available HBM (15.75G)" and "Used 30.00G of 15.75G hbm".
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return 0
    match = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available", message)
    match = match or re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    return round(float(match[1]) * _UNITS[match[2]]) if match else 0


def _step_time(topology: Topology, flops: int, step: CompiledStep) -> StepTime | None:
    chip = topology.chip
    if chip is None:
        return None
    return estimate_step_time(
        flops=flops // len(topology.devices),
        traffic_bytes=step.traffic_bytes,
        vector_operations=step.vector_operations,
        sent_bytes=sum(step.sent_bytes.values()),
        network_bytes=step.network_bytes,
        chip=chip,
        egress_bandwidth=chips.egress_bandwidth(chip, topology.sides),
    )


@contextlib.contextmanager
def elapsed_time_line(title: str) -> Iterator[None]:
    """Show the elapsed time on stderr while a call that prints nothing runs."""
    done = threading.Event()
    interval = 1.0 if sys.stderr.isatty() else 30.0

    def refresh_until_done():
        with tqdm(bar_format="{desc} {elapsed}", desc=title, mininterval=0.0) as line:
            while not done.wait(interval):
                line.refresh()

    thread = threading.Thread(target=refresh_until_done, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
