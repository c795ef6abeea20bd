"""The dry run: the real train step, compiled for devices that are not here, and weighed."""

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

from ul.config import TrainConfig
from ul.config.schema import MeshAxes
from ul.core import trees
from ul.planning.pods import chips, collectives, hlo, model_flops, traffic
from ul.planning.pods.roofline import Estimate, estimate
from ul.planning.pods.topology import Topology
from ul.runs import assemble
from ul.stages import registry
from ul.train import loop, state

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled step holds, moves and sends: bytes, a chip and step."""

    arguments: int
    temporaries: int
    peak: int
    traffic: int
    sent: dict[str, int]
    operations: dict[str, int]
    gathered_activations: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """One config on one topology.

    peak: bytes a chip needs. program, estimate: None where it cannot be compiled or
    timed. *_flops: of the whole step. least: bytes that a chip must send, by kind.
    """

    config: TrainConfig
    topology: Topology
    parameters: int
    model_flops: int
    closed_flops: int
    run_flops: int
    least: dict[str, int]
    peak: int = 0
    seconds: float = 0.0
    program: Program | None = None
    estimate: Estimate | None = None

    @property
    def chips(self) -> int:
        return len(self.topology.devices)

    @property
    def missing(self) -> int:
        """Bytes that a chip lacks; 0 when the step fits, or nothing is known of it."""
        chip = self.topology.chip
        return max(0, self.peak - round(chip.memory_gib * GIB)) if chip else 0

    @property
    def images_per_second(self) -> float:
        """Estimated, of the whole mesh; 0 when it does not fit or no speed is known."""
        if self.estimate is None or self.missing:
            return 0.0
        return self.config.batch_size / self.estimate.step


def on_axes(config: TrainConfig, data: int, fsdp: int, devices: int) -> TrainConfig:
    """The config on a mesh of so many devices, -1 resolved."""
    if data == -1 and fsdp > 0:
        data = devices // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = devices // data
    return dataclasses.replace(config, mesh=MeshAxes(data, fsdp))


def plan(config: TrainConfig, topology: Topology) -> Plan:
    """Lower, compile and weigh one step; what does not fit is a plan without program.

    Raises:
      ConfigError: a mesh or a batch that does not divide, attention of another device.
    """
    mesh = assemble.mesh(config, topology.devices)
    # cuDNN's attention asks a GPU that is here for its version.
    config = registry.portable(config)
    update, batch = assemble.update(config, mesh), assemble.abstract_batch(config, mesh)
    abstract = state.abstract_state(update.init, update.tx, update.ema_names, mesh)
    # A TPU multiplies bfloat16, and gathers what it multiplies as such.
    itemsize = (
        2 if on.devices.flat[0].platform == "tpu" else jnp.dtype(config.dtype).itemsize
    )
    known = Plan(
        config=config,
        topology=topology,
        parameters=trees.num_elements(abstract.params),
        model_flops=model_flops.model(config),
        closed_flops=model_flops.closed(config).training * config.batch_size,
        run_flops=model_flops.traced(config),
        least=collectives.least(abstract.params, mesh, itemsize),
    )
    began = time.monotonic()
    try:
        with jax.set_mesh(mesh), waiting(f"compiling for {topology.name}"):
            compiled = loop.lower_step(update, abstract, batch).compile(
                topology.options
            )
    except jax.errors.JaxRuntimeError as e:
        needed = bytes_needed(str(e))
        if not needed:
            raise
        return dataclasses.replace(known, peak=needed, seconds=time.monotonic() - began)
    seconds = time.monotonic() - began
    program = weigh(compiled, abstract.params, mesh)
    return dataclasses.replace(
        known,
        peak=program.peak,
        seconds=seconds,
        program=program,
        estimate=_estimate(topology, known.run_flops, program),
    )


def weigh(compiled: jax.stages.Compiled, params, mesh: jax.sharding.Mesh) -> Program:
    """Reads a compiled step's memory and its optimized HLO."""
    text, memory = hlo.parse(compiled.as_text() or ""), compiled.memory_analysis()
    assert memory is not None
    found = collectives.of(text)
    kinds = {k: [c for c in found if c.kind == k] for k in collectives.KINDS}
    return Program(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=peak(memory),
        traffic=traffic.of(text),
        sent={k: sum(c.sent for c in cs) for k, cs in kinds.items()},
        operations={k: sum(c.times for c in cs) for k, cs in kinds.items()},
        gathered_activations=tuple(
            f"{c.gathered[0].dtype}{list(c.gathered[0].dims)} {c.source[-40:]}"
            for c in collectives.gathered_activations(found, params, mesh)
        ),
    )


def peak(memory) -> int:
    """Bytes at the fullest moment; outputs that alias arguments count once."""
    known = getattr(memory, "peak_memory_in_bytes", 0)
    return known or (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def bytes_needed(message: str) -> int:
    """What an out-of-memory error of the TPU compiler says it wanted; 0: another error.

    "... memory required for ... (30.00G) exceeds available HBM (15.75G)", or
    "Used 30.00G of 15.75G hbm".
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return 0
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available", message)
    found = found or re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    return round(float(found[1]) * _UNITS[found[2]]) if found else 0


def _estimate(topology: Topology, flops: int, program: Program) -> Estimate | None:
    chip = topology.chip
    if chip is None:
        return None
    return estimate(
        flops=flops // len(topology.devices),
        traffic=program.traffic,
        sent=sum(program.sent.values()),
        peak=chip.flops,
        bandwidth=chip.memory_bandwidth,
        egress=chips.egress(chip, topology.sides),
    )


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """A line with the time that passes, on stderr, while something says nothing."""
    done = threading.Event()
    every = 1.0 if sys.stderr.isatty() else 30.0

    def tick():
        with tqdm(bar_format="{desc} {elapsed}", desc=what, mininterval=0.0) as line:
            while not done.wait(every):
                line.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
