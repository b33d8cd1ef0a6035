"""Memory of parts goes back to the system when they have arrived.

glibc raises the size from which it maps an allocation by itself to that of the largest one that was
freed (mallopt(3), M_MMAP_THRESHOLD): after the first part, buffers lie in the heaps of the threads,
and what is free between them stays. Eight writers of 64 MiB each took 178 MiB so, 108 without.
"""

from __future__ import annotations

import ctypes
import functools

_M_MMAP_THRESHOLD = -3
_APART = 128 << 10
"""Bytes from which an allocation is mapped by itself, and unmapped when it is freed: what glibc
begins with."""


@functools.cache
def keep_large_apart() -> bool:
    """Tell the allocator, once in a process, and let go of what lies unused after the imports of a
    service's library (10 MiB). Returns whether it understood: glibc's does."""
    try:
        library = ctypes.CDLL(None)
        understood = bool(library.mallopt(_M_MMAP_THRESHOLD, _APART))
        library.malloc_trim(0)
    except (OSError, AttributeError):
        return False  # another allocator, which may not need it
    return understood


def empty(buffer: bytearray) -> None:
    """Let go of a buffer's memory at once, whoever still knows the object."""
    try:
        buffer.clear()
    except BufferError:
        return  # a library still looks at it; it goes when that is done
