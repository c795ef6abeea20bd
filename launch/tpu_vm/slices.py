"""The devices of a Cloud TPU accelerator type."""

import re

# The types of older generations count TensorCores, two of each chip. From v4 on, JAX sees
# both cores of a chip as one device.
CORES_PER_DEVICE = {"v2": 1, "v3": 1, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}


def num_devices(accelerator: str) -> int:
    """Return JAX's devices of an accelerator type such as v5p-128 (64); 0 if unknown.

    Source: cloud.google.com/tpu/docs, "TPU versions" and "Accelerator types".
    """
    match = re.fullmatch(r"(\w+)-(\d+)", accelerator)
    if match is None or match[1] not in CORES_PER_DEVICE:
        return 0
    return int(match[2]) // CORES_PER_DEVICE[match[1]]
