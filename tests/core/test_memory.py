"""The process keeps freed memory for later allocations."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import gc, resource, numpy as np
from ul.core import memory
memory.retain_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    before = faults()
    np.ones(2**23)  # 64 MiB: 16,384 pages of 4 KiB, or 32 huge ones
    print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_the_next_allocation_reuses_freed_memory():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first, *later = map(int, result.stdout.split())
    assert first > 20 and max(later) < 10
