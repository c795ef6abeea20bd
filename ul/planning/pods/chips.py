"""What the makers say of their chips, a device of JAX each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """FLOP/s of dense bfloat16, usable GiB, bytes/s of memory, and of one link one way.

    memory_gib: what a program may use: on TPUs the compiler's own limit.
    wrap: sides that are multiples of it are closed to rings; 0: all-to-all switched.
    """

    name: str
    flops: float
    memory_gib: float
    memory_bandwidth: float
    link_bandwidth: float
    wrap: int
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


def egress(chip: Chip, sides: tuple[int, ...]) -> float:
    """Bytes/s that a chip can send into a torus of these sides, all links at once.

    An open side is a line: one direction of a ring's two counts.
    """
    if not chip.wrap:
        return chip.link_bandwidth
    links = sum(0 if n == 1 else 2 if n % chip.wrap == 0 else 1 for n in sides)
    return links * chip.link_bandwidth
