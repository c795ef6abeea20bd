"""The chips and the mesh of a plan for a pod, as flags."""

import re

from absl import flags

from launch.lib import cli
from ul.core.errors import ConfigError, OutOfMemory
from ul.planning.pods import report, topology
from ul.planning.pods.compile import PodPlan
from ul.runs.train_spec import TrainSpec

_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chips to compile for: v5p:4x4x4, v6e:16x16, h200:8, ..., or cpu:8. Required.",
)
_MESH = flags.DEFINE_multi_string(
    "mesh",
    [],
    "Mesh axes, for example fsdp=64 or data=4,fsdp=16; -1 means the remaining chips. If "
    "unset, the mesh of the config. Several meshes need --search of `ul plan pod`.",
)
_LEVEL = flags.DEFINE_enum(
    "optimization_level",
    "O1",
    topology.OPTIMIZATION_LEVELS,
    "Level of the TPU compiler: O0 compiles fastest, UNKNOWN is that of `ul train`.",
)


def read_topology(slices: int = 1) -> topology.Topology:
    """Return `slices` of the chips of --topology.

    Raises:
      ConfigError: it is not given, or there is no compiler for it.
    """
    return topology.parse_topology(cli.required(_TOPOLOGY), _LEVEL.value, slices)


def read_meshes(spec: TrainSpec) -> list[tuple[int, int]]:
    """Return (data, fsdp) of each --mesh, or those of the config."""
    return [_parse_mesh(mesh) for mesh in _MESH.value] or [spec.mesh_axes]


def _parse_mesh(text: str) -> tuple[int, int]:
    """Return (data, fsdp) of text such as data=4,fsdp=16."""
    if not re.fullmatch(r"(data|fsdp)=-?\d+(,(data|fsdp)=-?\d+)?", text):
        raise ConfigError(
            f"--mesh must have the form data=N,fsdp=M, as in data=4,fsdp=16; got {text!r}."
        )
    axes = {name: int(size) for name, size in re.findall(r"(\w+)=(-?\d+)", text)}
    return axes.get("data", 1 if "fsdp" in axes else -1), axes.get("fsdp", 1)


def check_memory(plan: PodPlan) -> None:
    """Raise OutOfMemory unless the step fits into the memory of a chip."""
    if plan.missing_bytes:
        raise OutOfMemory(
            f"The step must fit into the memory of a {plan.topology.name} chip; it "
            f"{report.memory_verdict(plan)}. Use a larger fsdp in --mesh, remat "
            "'full' for the networks, a larger accumulate or a smaller batch_size."
        )
