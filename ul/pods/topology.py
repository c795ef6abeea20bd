"""Devices to compile for, though they are not here."""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from ul.core.errors import ConfigError
from ul.pods.chips import CHIPS, Chip

# libtpu asks the machine where it is; on one without TPUs these answer.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Two plans at a time: no device is opened, so nothing is shared.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """name: as given. sides: chips along each axis. chip None: its speed is unknown."""

    name: str
    sides: tuple[int, ...]
    devices: list
    chip: Chip | None


def of(name: str) -> Topology:
    """`v5p:4x4x4`, or another TPU; `cpu:8`, virtual devices of this machine.

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
        devices = _cpu(math.prod(sides))
    elif CHIPS[kind].wrap:
        devices = _tpu(name, kind, sides)
    else:
        raise ConfigError(
            f"--topology {name}: compiling for a GPU that is not here needs a target "
            "description and the CUDA plugin, which this command does not load; "
            "use a TPU's topology or cpu:N"
        )
    return Topology(name, sides, devices, CHIPS.get(kind))


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
