"""Devices to compile for, though they are not here."""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from ul.core.errors import ConfigError
from ul.planning.pods.chips import CHIPS, Chip

# libtpu asks the machine where it is; on one without TPUs these answer.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Two plans at a time: no device is opened, so nothing is shared.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Tuning wants to run kernels, and Triton's matrix products cannot do without it.
_NO_TUNING: dict[str, str | bool] = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_autotune_level": "0",
}
# Of compute capability 9.0 and of the Hopper chips that have 132 cores; a text proto.
_HOPPER = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448 l2_cache_size: 52428800
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: %d device_memory_size: %d
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "%s"
"""


@dataclasses.dataclass(frozen=True)
class Topology:
    """name: as given. sides: chips along each axis. chip None: its speed is unknown.

    options: what the compiler is told, for it has no device to ask. effort: how long
    it looks for faster programs, from -1 to 1; 0 is what training takes.
    """

    name: str
    sides: tuple[int, ...]
    devices: list
    chip: Chip | None
    options: dict[str, str | bool] = dataclasses.field(default_factory=dict)
    effort: float = 0.0


def of(name: str, effort: float = -1.0) -> Topology:
    """`v5p:4x4x4` or another TPU; `h100:8`; `cpu:8`, virtual devices of this machine.

    To be called before JAX has counted its devices.

    Raises:
      ConfigError: a topology that does not exist, or a compiler that is not installed.
    """
    kind, _, size = name.partition(":")
    if not re.fullmatch(r"\d+(x\d+)*", size) or kind not in {"cpu", *CHIPS}:
        raise ConfigError(
            f"--topology is {name!r}; give one as v5p:4x4x4, v6e:16x16 or cpu:8; "
            f"known are cpu, {', '.join(CHIPS)}"
        )
    sides = tuple(map(int, size.split("x")))
    if "jax_platforms" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    if kind == "cpu":
        return Topology(name, sides, _cpu(math.prod(sides)), None)
    chip = CHIPS[kind]
    if not chip.wrap:
        devices = _gpu(name, chip, math.prod(sides))
        return Topology(name, sides, devices, chip, _NO_TUNING)
    jax.config.update("jax_exec_time_optimization_effort", effort)
    return Topology(name, sides, _tpu(name, kind, sides), chip, effort=effort)


def _cpu(count: int) -> list:
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as e:  # already counted
        if len(jax.devices("cpu")) < count:
            raise ConfigError(
                f"--topology cpu:{count}: JAX started with {len(jax.devices('cpu'))}"
            ) from e
    return jax.devices("cpu")[:count]


def _tpu(name: str, kind: str, sides: tuple[int, ...]) -> list:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {name} needs libtpu, which also compiles where no TPU is: "
            "pip install -c constraints.txt '.[tpu]'"
        )
    for key, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    how: dict[str, str | tuple[int, ...]] = {}
    if kind == "v4":
        how["chip_config_name"] = "megacore"  # one device a chip
    if math.prod(sides) == 1:
        how["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **how
        ).devices
    except jax.errors.JaxRuntimeError as e:
        raise ConfigError(f"--topology {name}: {str(e).splitlines()[0]}") from e
    return list(found)


def _gpu(name: str, chip: Chip, count: int) -> list:
    if count > 8:
        raise ConfigError(f"--topology {name}: GPUs of one node alone, at most 8")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        version = jax.__version__
        raise ConfigError(
            f"--topology {name} needs the CUDA compiler, which wants no GPU: pip install "
            f"--no-deps jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        )
    size = round(chip.memory_gib * 2**30)
    target = _HOPPER % (chip.memory_bandwidth, size, chip.name)
    found = topologies.get_topology_desc(
        platform="cuda", target_config=target, topology=f"1x1x{count}"
    )
    return list(found.devices)
