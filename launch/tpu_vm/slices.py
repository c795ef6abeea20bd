"""The devices of a Cloud TPU accelerator type."""

import logging
import re

from ul.core.errors import ConfigError

log = logging.getLogger("ul")

# The types of older generations count TensorCores, two of each chip. From v4 on, JAX sees
# both cores of a chip as one device.
CORES_PER_DEVICE = {"v2": 1, "v3": 1, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}


def num_devices(accelerator: str) -> int:
    """Return JAX's devices of an accelerator type such as v5p-128 (64); 0 if unknown.

    Source: cloud.google.com/tpu/docs, "TPU versions" and "Accelerator types".

    Raises:
      ConfigError: it is not the name of a type.
    """
    match = re.fullmatch(r"([a-z0-9]+)-(\d+)", accelerator)
    cores = CORES_PER_DEVICE.get(match[1], 0) if match else 0
    if match is None or cores and int(match[2]) % cores:
        raise ConfigError(
            "--accelerator must be a Cloud TPU type such as v5p-128, v6e-16 or v4-8; got "
            f"{accelerator}."
        )
    if not cores:
        log.warning(
            "the accelerator type %s is not known; the mesh is not checked", accelerator
        )
    return int(match[2]) // cores if cores else 0
