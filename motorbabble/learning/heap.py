"""Heap: memory that an update needs is kept for the next one, instead of being given back to the system in between.

An update asks for pieces of many megabytes and soon frees them. The C library of most Linux systems gives large pieces and free memory at the
top of its heap back to the system at once, and the next update pays for every page anew, which the system clears first.
Told to keep it, an update of 224 px takes 3 to 8 % less time (LAB_NOTES.md, 2026-11-29) and no more memory at its peak.
In between, a learning process stays as large as it was at its largest; what is free goes back when it has learned enough.
"""

import ctypes
import os
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3), Linux manual
KEPT = 2**30  # bytes: a larger piece is given back
OTHERS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")  # who sets one of these has chosen otherwise


@cache
def keep_memory() -> bool:
    """For the rest of this process; True where that was possible and nobody chose otherwise (OTHERS). Asked again it does nothing."""
    if not _is_glibc() or any(os.environ.get(name) for name in OTHERS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def give_back() -> None:
    """What is free goes back to the system, once; whatever is asked for later is kept as before."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
