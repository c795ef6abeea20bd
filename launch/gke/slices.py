"""The hosts of a TPU slice."""

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
