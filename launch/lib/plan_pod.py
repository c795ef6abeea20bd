"""Compile the train step for a pod without having one (`ul plan pod`)."""

import re

from absl import flags

from launch.lib import cli
from ul.config import TrainConfig
from ul.core.errors import ConfigError, OutOfMemory
from ul.planning.pods import report, search, topology
from ul.runs.train_spec import TrainSpec

_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chips to compile for: v5p:4x4x4, v6e:16x16, v5e:2x2, ..., or cpu:8. Required.",
)
_MESH = flags.DEFINE_multi_string(
    "mesh",
    [],
    "Mesh axes, for example fsdp=64 or data=4,fsdp=16; -1 means the remaining chips. If "
    "unset, the mesh of the config. Several meshes need --search.",
)
_SEARCH = flags.DEFINE_bool(
    "search",
    False,
    "Try every combination of --mesh, --batch_per_chip and --remat and rank them.",
)
_BATCHES = flags.DEFINE_list(
    "batch_per_chip",
    [],
    "Batch sizes per chip for --search; if unset, half, once and twice the config's.",
)
_REMATS = flags.DEFINE_list(
    "remat", ["none", "dots", "full"], "Rematerialization policies for --search."
)
_LEVEL = flags.DEFINE_enum(
    "optimization_level",
    "O1",
    topology.OPTIMIZATION_LEVELS,
    "Level of the TPU compiler: O0 compiles fastest, UNKNOWN is that of training.",
)


def _parse_mesh(text: str) -> tuple[int, int]:
    """Return (data, fsdp) of text such as data=4,fsdp=16."""
    if not re.fullmatch(r"(data|fsdp)=-?\d+(,(data|fsdp)=-?\d+)?", text):
        raise ConfigError(
            f"--mesh must have the form data=N,fsdp=M, as in data=4,fsdp=16; got {text!r}."
        )
    axes = {name: int(size) for name, size in re.findall(r"(\w+)=(-?\d+)", text)}
    return axes.get("data", 1 if "fsdp" in axes else -1), axes.get("fsdp", 1)


def main(config: TrainConfig) -> None:
    """Print the plan, or with --search the ranked plans.

    Raises:
      OutOfMemory: the only plan does not fit; its table is printed before.
    """
    spec = TrainSpec(config)
    meshes = [_parse_mesh(mesh) for mesh in _MESH.value] or [spec.mesh_axes]
    batches = _BATCHES.value
    if not all(b.isdigit() and int(b) for b in batches):
        raise ConfigError(f"--batch_per_chip must be positive integers; got {batches}.")
    if not _SEARCH.value and (len(meshes) > 1 or batches):
        several = "Several --mesh flags or --batch_per_chip"
        raise ConfigError(f"{several} require --search; it is not set.")
    pod = topology.parse_topology(cli.required(_TOPOLOGY), _LEVEL.value)
    if _SEARCH.value:
        sizes = [int(b) for b in batches]
        return print(search.run_search(spec, pod, meshes, _REMATS.value, sizes))
    plan = search.plan_on_axes(spec, pod, meshes[0])
    print(report.format_plan(plan))
    if plan.missing_bytes:
        raise OutOfMemory(
            f"The step must fit into the memory of a {pod.name} chip; it "
            f"{report.memory_verdict(plan)}. Use a larger fsdp in --mesh, remat "
            "'full' for the networks, a larger accumulate or a smaller batch_size."
        )
