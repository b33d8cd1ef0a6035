"""Memory of parts: kept for a moment for those that come, and else the system's again.

New memory costs: the system clears each page when it is touched for the first time, which was a
quarter of the processor time of a pack's upload. So the buffer of a part that has arrived is used
for another, as long as all together hold no more than they may.

glibc raises the size from which it maps an allocation by itself to that of the largest one that was
freed (mallopt(3), M_MMAP_THRESHOLD): after the first part, buffers lie in the heaps of the threads,
and what is free between them stays. Eight writers of 64 MiB each took 178 MiB so, 108 without.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

_M_MMAP_THRESHOLD = -3
_APART = 128 << 10
"""Bytes from which an allocation is mapped by itself, and unmapped when it is freed: what glibc
begins with."""

KEPT = 1.0
"""Seconds for which a buffer is kept that nobody uses."""

_MOST = 11 << 20
"""Bytes of all buffers that are kept: two parts of 5 MiB, and something."""

_WORTH = 1 << 20
"""Bytes of a buffer from which it is kept: smaller ones are cheap."""

_SLACK = 8
"""One so many-th of a buffer may be memory that holds nothing: Python sets as much aside."""


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


class SpareBuffers:
    """Buffers that nobody uses now. Safe for threads.

    Args:
        room: returns the bytes that they may have together at the moment.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self.held = 0
        """Bytes of all of them."""
        self._room = room
        self._lock = threading.Lock()
        self._buffers: list[bytearray] = []
        self._used = 0.0
        """Monotonic time at which one was kept last."""
        self._timer: threading.Timer | None = None

    def take(self, size: int) -> bytearray | None:
        """Return a buffer of so many bytes, with anything in it; None where there is none."""
        with self._lock:
            for number, buffer in enumerate(self._buffers):
                if size <= len(buffer) and not _slack(buffer, size):
                    del self._buffers[number]
                    self.held -= len(buffer)
                    break
            else:
                return None
        del buffer[size:]
        return buffer

    def keep(self, buffer: bytearray) -> None:
        """Keep a buffer that its owner does not look at any more, or let go of its memory at once,
        whoever still knows the object."""
        size = len(buffer)
        if size < _WORTH or _slack(buffer, size) or not _is_ours(buffer) or not self._add(buffer):
            empty(buffer)

    def _add(self, buffer: bytearray) -> bool:
        with self._lock:
            if self.held + len(buffer) > min(self._room(), _MOST):
                return False
            if self._timer is None and not self._wait(KEPT):
                return False
            self._buffers.append(buffer)
            self.held += len(buffer)
            self._used = time.monotonic()
        return True

    def trim(self) -> None:
        """Let go of those that there is no room for."""
        with self._lock:
            while self._buffers and self.held > self._room():
                self.held -= len(self._buffers.pop())

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._buffers.clear()
            self.held = 0
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()

    def _wait(self, seconds: float) -> bool:
        """Look after so long; False where there is no thread for that."""
        timer = threading.Timer(seconds, self._look)
        timer.name = "backupgw-buffers"
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # the process may have no more of them, or it ends
            return False
        self._timer = timer
        return True

    def _look(self) -> None:
        with self._lock:
            left = self._used + KEPT - time.monotonic()
            if left > 0 and self._buffers and self._wait(left):
                return
            self._buffers.clear()
            self.held = 0
            self._timer = None


def empty(buffer: bytearray) -> None:
    """Let go of a buffer's memory at once, whoever still knows the object."""
    try:
        buffer.clear()
    except BufferError:
        return  # a library still looks at it; it goes when that is done


def _slack(buffer: bytearray, size: int) -> bool:
    """Whether a buffer takes much more memory than so many bytes: shortening gives none back."""
    return buffer.__alloc__() - 1 > size + size // _SLACK


def _is_ours(buffer: bytearray) -> bool:
    """Whether no library looks at a buffer, which is not empty."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
