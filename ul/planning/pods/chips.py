"""Data-sheet figures of accelerator chips; each chip is one JAX device."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates and memory of one chip.

    flops: dense bfloat16 FLOP/s.
    vector_rate: elementwise operations per second.
    memory_gib: GiB that a program may use; on TPUs this is the compiler's own limit.
    memory_bandwidth: bytes/s.
    link_bandwidth: bytes/s of one link in one direction.
    network_bandwidth: bytes/s of its share of the data-center network, which joins slices.
    ring_multiple: a side of the torus closes to a ring if it is a multiple of this; 0 means
      that the chips are connected all to all by a switch.
    """

    name: str
    flops: float
    vector_rate: float
    memory_gib: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    ring_multiple: int
    source: str


def _tpu_vector_rate(cores: int, clock: float) -> float:
    """Return the operations per second of vector units with 4 ALUs for 8 x 128 lanes."""
    return cores * 8 * 128 * 4 * clock


_TPU = "cloud.google.com/tpu/docs, jax-ml.github.io/scaling-book"
_GPU = "NVIDIA's data sheets; one operation per clock and float32 core"
CHIPS = {
    "v4": Chip(
        "TPU v4", 275e12, _tpu_vector_rate(2, 1.05e9), 30.75, 1.228e12, 45e9, 6.25e9, 4,
        _TPU,
    ),
    "v5e": Chip(
        "TPU v5e", 197e12, _tpu_vector_rate(1, 1.5e9), 15.75, 0.82e12, 45e9, 3.125e9, 16,
        _TPU,
    ),
    "v5p": Chip(
        "TPU v5p", 459e12, _tpu_vector_rate(2, 1.75e9), 95.74, 2.765e12, 90e9, 6.25e9, 4,
        _TPU,
    ),
    "v6e": Chip(
        "TPU v6e", 918e12, _tpu_vector_rate(1, 1.75e9), 31.25, 1.64e12, 90e9, 12.5e9, 16,
        _TPU,
    ),
    # A chip of two devices, which share its links. The clock of its vector unit is not
    # published; that of v6e is assumed.
    "tpu7x": Chip(
        "half a TPU7x", 1153.5e12, _tpu_vector_rate(1, 1.75e9), 94.75, 3.69e12, 50e9,
        6.25e9, 4, _TPU,
    ),
    "h100": Chip("H100 SXM", 989e12, 33.5e12, 79.1, 3.35e12, 450e9, 50e9, 0, _GPU),
    "h200": Chip("H200 SXM", 989e12, 33.5e12, 140.4, 4.8e12, 450e9, 50e9, 0, _GPU),
    "b200": Chip("B200", 2250e12, 37.5e12, 178.0, 8.0e12, 900e9, 50e9, 0, _GPU),
    "gb200": Chip("GB200", 2500e12, 40.0e12, 184.0, 8.0e12, 900e9, 50e9, 0, _GPU),
}  # fmt: skip


# By what JAX calls the kind of a device.
_DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA GB200": "gb200",
}


def chip_of_device(device_kind: str) -> Chip | None:
    """Return the data sheet of an attached device, or None if it is not in the table."""
    name = _DEVICE_KINDS.get(device_kind)
    return CHIPS[name] if name else None


def egress_bandwidth(chip: Chip, sides: tuple[int, ...]) -> float:
    """Return the bytes/s that a chip can send into a torus of these sides.

    All links count at once. A side that does not close to a ring is a line and counts one
    direction instead of two.
    """
    if not chip.ring_multiple:
        return chip.link_bandwidth
    links = sum(0 if n == 1 else 2 if n % chip.ring_multiple == 0 else 1 for n in sides)
    return links * chip.link_bandwidth
