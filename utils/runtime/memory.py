"""Memory of the process as the C library manages it."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_* of glibc's malloc.h
LARGEST_KEPT = 32 << 20  # bytes, the most that glibc takes: larger blocks are mapped and given back one by one
NEVER = -1


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next step, instead of giving it back and having each page zeroed again.

    A training step on the CPU frees hundreds of megabytes that the next one takes again: 6 % of the demo model's step.
    The process keeps what it needed at its peak, blocks of over 32 MiB aside.

    Returns:
        Whether the C library has done so; others than glibc have no such settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows takes no None
        return False
    return all(mallopt(*setting) == 1 for setting in ((MMAP_THRESHOLD, LARGEST_KEPT), (TRIM_THRESHOLD, NEVER)))
