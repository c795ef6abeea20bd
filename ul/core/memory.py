"""The memory allocator of this process."""

import ctypes

# Option numbers of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def retain_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations; does nothing elsewhere.

    XLA on CPUs allocates the temporaries of every step anew. If the kernel takes them
    back after each step, it must zero every page again, which took a fifth of the step
    time of small models.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
