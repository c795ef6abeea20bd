"""Descriptions of devices that the compiler can target without being attached to them."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies

from ul.core import extras, jax_internals
from ul.core.errors import ConfigError
from ul.planning.pods.chips import CHIPS, Chip

# Levels of XLA by JAX's names. JAX trains at UNKNOWN, which leaves the choice to XLA.
TRAINING_LEVEL = "UNKNOWN"
OPTIMIZATION_LEVELS = (TRAINING_LEVEL, "O0", "O1", "O2", "O3")
# libtpu queries the environment of a TPU machine; elsewhere these values answer it.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Several plans may run at the same time, because none of them opens a device.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Autotuning has to run kernels, and Triton's matrix products need autotuning.
_NO_AUTOTUNING: dict[str, str | bool] = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_autotune_level": "0",
}
# Major compute capability, cores (SMs) and bytes of L2 cache; from NVIDIA's white papers.
_GPU_ARCHITECTURES = {
    "h100": (9, 132, 52_428_800),
    "h200": (9, 132, 52_428_800),
    "b200": (10, 148, 132_120_576),
    "gb200": (10, 148, 132_120_576),
}
# Text proto of a GPU.
_GPU_TARGET = """
gpu_device_info {
  cuda_compute_capability { major: %d }
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448 l2_cache_size: %d
  core_count: %d fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: %d device_memory_size: %d
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "%s"
"""


@dataclasses.dataclass(frozen=True)
class Topology:
    """The devices of a pod or a node, described for the compiler.

    name: the value of --topology.
    sides: number of chips along each axis.
    chip: data sheet, or None if the speed of the device is unknown.
    options: compiler options that an attached device would determine.
    optimization_level: how much the TPU compiler optimizes, one of OPTIMIZATION_LEVELS.
    slices: number of such pods or nodes, which the data-center network joins.
    """

    name: str
    sides: tuple[int, ...]
    devices: list
    chip: Chip | None
    options: dict[str, str | bool] = dataclasses.field(default_factory=dict)
    optimization_level: str = TRAINING_LEVEL
    slices: int = 1


def parse_topology(
    name: str, optimization_level: str = "O1", slices: int = 1
) -> Topology:
    """Return the topology with this name, or several `slices` of it.

    `v5p:4x4x4` and the like are TPU pods, `h100:8` is a GPU node, and `cpu:8` means virtual
    devices of this machine. Call it before JAX initializes its devices.

    Raises:
      ConfigError: the topology does not exist, or its compiler is not installed.
    """
    kind, _, size = name.partition(":")
    if not re.fullmatch(r"\d+(x\d+)*", size) or kind not in {"cpu", *CHIPS}:
        raise ConfigError(
            "--topology must be a device and the number of chips along each axis, such "
            f"as v5p:4x4x4 or cpu:8, with a device from cpu, {', '.join(CHIPS)}; got "
            f"{name!r}."
        )
    sides = tuple(map(int, size.split("x")))
    if slices < 1 or slices > 1 and kind == "cpu":
        raise ConfigError(
            "--slices must be a positive number of TPU slices or GPU nodes, and 1 for virtual "
            f"devices; got {slices} of {name}."
        )
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    if kind == "cpu":
        return Topology(name, sides, _cpu_devices(math.prod(sides)), None)
    # A program for absent devices cannot be loaded from the cache of compiled programs.
    jax.config.update("jax_enable_compilation_cache", False)
    chip = CHIPS[kind]
    if not chip.ring_multiple:
        devices = _gpu_devices(name, chip, math.prod(sides), slices)
        return Topology(name, sides, devices, chip, _NO_AUTOTUNING, slices=slices)
    jax.config.update("jax_optimization_level", optimization_level)
    devices = _tpu_devices(name, kind, sides, slices)
    return Topology(name, sides, devices, chip, {}, optimization_level, slices)


def _cpu_devices(count: int) -> list:
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as e:  # JAX has initialized its devices already
        if len(jax.devices("cpu")) < count:
            raise ConfigError(
                f"--topology cpu:{count} needs {count} virtual CPU devices, but JAX has "
                f"already started with {len(jax.devices('cpu'))}. Start a new process."
            ) from e
    return jax.devices("cpu")[:count]


def _tpu_devices(name: str, kind: str, sides: tuple[int, ...], slices: int) -> list:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {name} needs libtpu, which compiles without a TPU but is not "
            f"installed. {extras.install_hint('tpu', f'jax[tpu]=={jax.__version__}')}"
        )
    for key, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **options
        )
    except jax.errors.JaxRuntimeError as e:
        raise ConfigError(
            f"--topology must be a shape that libtpu knows; it rejects {name}: "
            f"{str(e).splitlines()[0]}"
        ) from e
    return list(description.devices)


@contextlib.contextmanager
def assume_cudnn(topology: Topology) -> Iterator[None]:
    """Let JAX lower cuDNN's attention for GPUs that are not attached.

    JAX asks the attached GPU for its version of cuDNN and its compute capability; this
    answers for the topology's.
    """
    if topology.chip is None or topology.chip.ring_multiple:
        yield
        return
    answers: dict[str, Any] = {
        "check_cudnn_version": lambda: 91000,
        "check_compute_capability": lambda capability: True,
        "is_cuda_compute_capability_equal": lambda capability: False,
    }
    module = jax_internals.internal_module("cudnn.fused_attention_stablehlo", *answers)
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(module, name, answer))
        yield


def _gpu_devices(name: str, chip: Chip, count: int, slices: int) -> list:
    if count > 8:
        raise ConfigError(
            f"A GPU topology is one node of at most 8 GPUs; --topology {name} has {count}. "
            "Pass several nodes as --slices."
        )
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        version = jax.__version__
        raise ConfigError(
            f"--topology {name} needs the CUDA compiler, which works without a GPU but is "
            "not installed. Install it: pip install --no-deps "
            f"jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        )
    memory_bytes = round(chip.memory_gib * 2**30)
    capability, cores, cache_bytes = _GPU_ARCHITECTURES[name.partition(":")[0]]
    target = _GPU_TARGET % (
        *(capability, cache_bytes, cores),
        *(chip.memory_bandwidth, memory_bytes, chip.name),
    )
    description = topologies.get_topology_desc(
        platform="cuda", target_config=target, topology=f"1x{slices}x{count}"
    )
    return list(description.devices)
