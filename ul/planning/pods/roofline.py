"""Lower bound on the time of a step, from three counts and a chip's peak rates."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds that each of three resources needs for one step; they work in parallel."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """Time of a step if all three overlap: the slowest one decides."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def without_overlap(self) -> float:
        """Time of a step if the three run one after the other."""
        return self.compute + self.memory + self.interconnect


def estimate_step_time(
    *,
    flops: int,
    traffic_bytes: int,
    sent_bytes: int,
    peak_flops: float,
    memory_bandwidth: float,
    egress_bandwidth: float,
) -> StepTime:
    """Divide the counts per chip and step by the chip's peak rates.

    A chip without links has `egress_bandwidth` 0 and needs no time for the interconnect.
    """
    interconnect = sent_bytes / egress_bandwidth if egress_bandwidth else 0.0
    return StepTime(flops / peak_flops, traffic_bytes / memory_bandwidth, interconnect)
