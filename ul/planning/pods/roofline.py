"""How long a step takes, from three counts and a chip's data sheet."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step for each of what a chip does at the same time."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """All at once: the slowest decides."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def in_turn(self) -> float:
        """One after the other."""
        return self.compute + self.memory + self.interconnect


def estimate(
    *, flops: int, traffic: int, sent: int, peak: float, bandwidth: float, egress: float
) -> Estimate:
    """FLOPs, bytes of memory traffic and bytes sent, a chip and step; each at its peak."""
    network = sent / egress if egress else 0.0
    return Estimate(flops / peak, traffic / bandwidth, network)
