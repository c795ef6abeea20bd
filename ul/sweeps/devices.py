"""The GPUs of this machine, divided among the trials that run at the same time."""

import itertools
import math
import os
import subprocess
from collections.abc import Sequence

# The fraction of a GPU's memory that its trials may use together.
MEMORY_FRACTION = 0.9
TIMEOUT_SECONDS = 20.0


def local_gpus() -> list[str]:
    """Return the GPUs of this machine as CUDA names them, or an empty list.

    CUDA_VISIBLE_DEVICES limits them; CUDA ignores what follows an invalid name, such as -1.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        return list(itertools.takewhile(lambda n: n and not n.startswith("-"), names))
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):  # no driver of NVIDIA, or a broken one
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def environments(gpus: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """Return the environment variables of each of `jobs` trials that run together.

    With enough GPUs every trial has its own, equally many. Otherwise several trials share
    a GPU. By default JAX would reserve 75 % of its memory for each of them; a fraction that
    the user has set stays.
    """
    if not gpus or jobs == 1:
        return [{} for _ in range(jobs)]
    if jobs <= len(gpus):
        each = len(gpus) // jobs
        groups = (gpus[i * each : (i + 1) * each] for i in range(jobs))
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
    fraction = f"{MEMORY_FRACTION / math.ceil(jobs / len(gpus)):.2f}"
    fraction = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", fraction)
    return [
        {
            "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)],
            "XLA_PYTHON_CLIENT_MEM_FRACTION": fraction,
        }
        for i in range(jobs)
    ]
