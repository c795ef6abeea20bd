"""Data-sheet figures of accelerator chips; each chip is one JAX device."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates and memory of one chip.

    flops: dense bfloat16 FLOP/s.
    memory_gib: GiB that a program may use; on TPUs this is the compiler's own limit.
    memory_bandwidth: bytes/s.
    link_bandwidth: bytes/s of one link in one direction.
    ring_multiple: a side of the torus closes to a ring if it is a multiple of this; 0 means
      that the chips are connected all to all by a switch.
    """

    name: str
    flops: float
    memory_gib: float
    memory_bandwidth: float
    link_bandwidth: float
    ring_multiple: int
    source: str


_TPU = "cloud.google.com/tpu/docs, jax-ml.github.io/scaling-book"
_GPU = "NVIDIA's data sheet"
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 30.75, 1.228e12, 45e9, 4, _TPU),
    "v5e": Chip("TPU v5e", 197e12, 15.75, 0.82e12, 45e9, 16, _TPU),
    "v5p": Chip("TPU v5p", 459e12, 95.74, 2.765e12, 90e9, 4, _TPU),
    "v6e": Chip("TPU v6e", 918e12, 31.25, 1.64e12, 90e9, 16, _TPU),
    "h100": Chip("H100 SXM", 989e12, 79.1, 3.35e12, 450e9, 0, _GPU),
    "h200": Chip("H200 SXM", 989e12, 140.4, 4.8e12, 450e9, 0, _GPU),
}


def egress_bandwidth(chip: Chip, sides: tuple[int, ...]) -> float:
    """Return the bytes/s that a chip can send into a torus of these sides.

    All links count at once. A side that does not close to a ring is a line and counts one
    direction instead of two.
    """
    if not chip.ring_multiple:
        return chip.link_bandwidth
    links = sum(0 if n == 1 else 2 if n % chip.ring_multiple == 0 else 1 for n in sides)
    return links * chip.link_bandwidth
