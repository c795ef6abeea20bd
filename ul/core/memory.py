"""Memory of this process."""

import ctypes

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed() -> None:
    """Have freed memory kept for the next allocation, where the C library is glibc.

    XLA for CPUs allocates the temporaries of every step anew. Given back to the kernel each
    time and zeroed again page by page, they took a fifth of the steps of small models.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
