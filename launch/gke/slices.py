"""The hosts and devices of a TPU slice or of GPU nodes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ul.core.errors import ConfigError

if TYPE_CHECKING:
    from launch.gke import GkePlace


def hosts_and_chips(topology: str, chips_per_host: int) -> tuple[int, int]:
    """Return how many hosts a slice such as 4x4x4 has, and the chips of each.

    Raises:
      ConfigError: `topology` is invalid, or its chips do not fill whole hosts.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*)?", topology):
        raise ConfigError(
            f"--topology must be chips per axis, such as 4x4 or 4x4x4; got {topology}."
        )
    chips = math.prod(map(int, topology.split("x")))
    chips_of_host = min(chips, chips_per_host)
    if chips % chips_of_host:
        raise ConfigError(
            f"The chips of --topology must be divisible by --chips_per_host; got "
            f"{chips} chips for {topology} and {chips_per_host} chips per host."
        )
    return chips // chips_of_host, chips_of_host


def devices(place: GkePlace) -> str:
    """Return platform:count of all slices, or of all GPU nodes.

    Raises:
      ConfigError: the settings name both or neither, contradict each other, or the
        topology is invalid.
    """
    if bool(place.topology) == bool(place.gpus_per_node):
        raise ConfigError(
            "Give either --topology for TPUs, or --gpus_per_node for GPUs; got "
            f"{'both' if place.topology else 'neither'}."
        )
    prefix = "tpu" if place.topology else "nvidia-"
    if not place.accelerator.startswith(prefix):
        raise ConfigError(
            f"--accelerator must be a label of GKE that begins with {prefix}, such as "
            f"tpu-v5p-slice or nvidia-h100-80gb; got {place.accelerator}."
        )
    if place.slices < 1 or place.slices > 1 and not place.topology:
        raise ConfigError(
            "--slices must be at least 1, and 1 for GPU nodes, whose number is --nodes; got "
            f"{place.slices}."
        )
    if not place.topology:
        return f"gpu:{place.nodes * place.gpus_per_node}"
    if place.nodes != 1:
        raise ConfigError(
            "--nodes is the number of GPU nodes; a TPU slice has those of its --topology. "
            "Remove --nodes."
        )
    chips = math.prod(hosts_and_chips(place.topology, place.chips_per_host))
    return f"tpu:{place.slices * chips}"
