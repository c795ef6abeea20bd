"""The GPUs of this machine, divided among the trials that run at the same time."""

import math
import os
import subprocess
from collections.abc import Sequence

# Of a GPU's memory, what the trials on it may take together.
MEMORY_FRACTION = 0.9


def local_gpus() -> list[str]:
    """Return the GPUs of this machine as CUDA names them, and none if there are none.

    CUDA_VISIBLE_DEVICES limits them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # no driver of NVIDIA
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def environments(gpus: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """Return the environment variables of each of `jobs` trials that run together.

    With enough GPUs every trial has its own, equally many. Otherwise several trials share
    a GPU and its memory, of which JAX would take three quarters for each.
    """
    if not gpus or jobs == 1:
        return [{} for _ in range(jobs)]
    if jobs <= len(gpus):
        each = len(gpus) // jobs
        groups = (gpus[i * each : (i + 1) * each] for i in range(jobs))
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
    fraction = MEMORY_FRACTION / math.ceil(jobs / len(gpus))
    return [
        {
            "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)],
            "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{fraction:.2f}",
        }
        for i in range(jobs)
    ]
