"""The hosts and devices of a TPU slice or of GPU nodes."""

import math
import re

from ul.core.errors import ConfigError


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


def num_devices(
    topology: str, chips_per_host: int, nodes: int, gpus_per_node: int
) -> int:
    """Return the chips of a slice, or the GPUs of all nodes if `topology` is empty.

    Raises:
      ConfigError: both or neither are given, or the topology is invalid.
    """
    if bool(topology) == bool(gpus_per_node):
        raise ConfigError(
            "Give either --topology for TPUs, or --gpus_per_node for GPUs; got "
            f"{'both' if topology else 'neither'}."
        )
    if topology:
        return math.prod(hosts_and_chips(topology, chips_per_host))
    return nodes * gpus_per_node
