"""Hosts of a TPU slice."""

import math
import re

from ul.core.errors import ConfigError


def hosts_and_chips(topology: str, chips_per_host: int) -> tuple[int, int]:
    """How many hosts a slice as 4x4x4 has, and chips each.

    Raises:
      ConfigError: not a topology, or not divisible by the chips of a host.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*)?", topology):
        raise ConfigError(f"--topology is {topology}, not as 4x4 or 4x4x4")
    chips = math.prod(map(int, topology.split("x")))
    each = min(chips, chips_per_host)
    if chips % each:
        raise ConfigError(
            f"--topology {topology} has {chips} chips, not divisible by "
            f"--chips_per_host {chips_per_host}"
        )
    return chips // each, each
