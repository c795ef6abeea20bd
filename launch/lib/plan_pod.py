"""`launch.plan pod`: the real train step compiled for a pod that is not here."""

import re

from absl import flags

from launch.lib import cli
from ul.config import TrainConfig
from ul.core.errors import ConfigError, OutOfMemory
from ul.planning.pods import report, search, topology

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "v5p:4x4x4, v6e:16x16, v5e:2x2, ... or cpu:8."
)
_MESH = flags.DEFINE_multi_string(
    "mesh", [], "fsdp=64 or data=4,fsdp=16; -1 is the rest. The config's if unset."
)
_SEARCH = flags.DEFINE_bool("search", False, "Try every batch, remat and mesh below.")
_BATCHES = flags.DEFINE_list(
    "batch_per_chip", [], "Examples a chip; half, once and twice the config's if unset."
)
_EFFORT = flags.DEFINE_float(
    "effort", -1.0, "Of the TPU compiler: -1 is quickest, 0 as training has it.", -1, 1
)
_REMATS = flags.DEFINE_list("remat", ["none", "dots", "full"], "Remat policies.")


def _axes(text: str) -> tuple[int, int]:
    """(data, fsdp) of data=4,fsdp=16."""
    if not re.fullmatch(r"(data|fsdp)=-?\d+(,(data|fsdp)=-?\d+)?", text):
        raise ConfigError(f"--mesh is {text!r}; give it as fsdp=64 or data=4,fsdp=16")
    given = dict(part.split("=") for part in text.split(","))
    both = {"data": 1 if "fsdp" in given else -1, "fsdp": 1} | given
    return int(both["data"]), int(both["fsdp"])


def main(parsed: TrainConfig) -> None:
    """Raises OutOfMemory, after the table, if a single plan does not fit."""
    meshes = [_axes(m) for m in _MESH.value] or [(parsed.mesh.data, parsed.mesh.fsdp)]
    if not all(b.isdigit() and int(b) for b in _BATCHES.value):
        raise ConfigError(f"--batch_per_chip is {_BATCHES.value}; give 8,16,32")
    if not _SEARCH.value and (len(meshes) > 1 or _BATCHES.value):
        raise ConfigError("several meshes or batches are tried with --search alone")
    where = topology.of(cli.required(_TOPOLOGY), _EFFORT.value)
    if not _SEARCH.value:
        made = search.single(parsed, where, meshes[0])
        print(report.one(made))
        if made.missing:
            raise OutOfMemory(f"{where.name}: the step {report.verdict(made)} a chip")
        return
    batches = [int(b) for b in _BATCHES.value]
    print(search.best(parsed, where, meshes, _REMATS.value, batches))
