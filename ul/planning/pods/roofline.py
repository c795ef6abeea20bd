"""Lower bound on the time of a step, from its counts and a chip's peak rates."""

import dataclasses

from ul.planning.pods.chips import Chip


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds that each resource needs for one step; they work in parallel.

    compute: the matrix units. memory: HBM. vector: the vector units. interconnect: the
    links within a slice or a node. network: the data-center network between slices.
    """

    compute: float
    memory: float
    vector: float
    interconnect: float
    network: float = 0.0

    @property
    def step(self) -> float:
        """Time of a step if all of them overlap: the slowest one decides."""
        return max(dataclasses.astuple(self))

    @property
    def without_overlap(self) -> float:
        """Time of a step if they run one after the other."""
        return sum(dataclasses.astuple(self))


def estimate_step_time(
    *,
    flops: int,
    traffic_bytes: int,
    vector_operations: int,
    sent_bytes: int,
    network_bytes: int,
    chip: Chip,
    egress_bandwidth: float,
) -> StepTime:
    """Divide the counts per chip and step by the chip's peak rates.

    A chip without links has `egress_bandwidth` 0 and needs no time for the interconnect.
    """
    return StepTime(
        compute=flops / chip.flops,
        memory=traffic_bytes / chip.memory_bandwidth,
        vector=vector_operations / chip.vector_rate,
        interconnect=sent_bytes / egress_bandwidth if egress_bandwidth else 0.0,
        network=network_bytes / chip.network_bandwidth,
    )
