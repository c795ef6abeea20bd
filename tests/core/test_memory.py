"""Freed memory stays with the process."""

import ctypes
import subprocess
import sys

import pytest

KEPT = """
import gc, resource, numpy as np
from ul.core import memory
memory.keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    before = faults()
    np.ones(2**23)  # 64 MiB: 16,384 pages of 4 KiB, or 32 huge ones
    print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_there_for_the_next_allocation():
    done = subprocess.run(
        [sys.executable, "-c", KEPT], capture_output=True, text=True, check=True
    )
    first, *later = map(int, done.stdout.split())
    assert first > 20 and max(later) < 10
