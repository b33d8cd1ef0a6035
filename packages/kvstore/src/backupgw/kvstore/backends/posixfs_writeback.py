"""Bytes of a long value that go to the disk while more of it comes.

The kernel writes back what is dirty when it is asked to sync, or much later. So a long value would
wait at its end for all of it. Here one thread of the process asks for what has come so far, and the
sync at the end, which is what the promise stands on, finds little left. The thread that takes the
value never waits: handing bytes to a disk with a full queue blocks, and what is not handed over in
time is left to the sync.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

FIRST = 16 << 20
"""Bytes of a value before anything is asked for: what is shorter is soon synced."""
STEP = 8 << 20
"""Bytes that are asked for at a time."""
MOST_WAITING = 32
"""Requests of all values that wait for the thread; more are not made."""

_SYNC_FILE_RANGE_WRITE = 2

_Request = tuple[int, int, int]
"""Descriptor, offset, length; a length of 0 closes the descriptor."""


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the system call, which only some systems have."""
    try:
        call = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (AttributeError, OSError):
        return None
    call.restype = ctypes.c_int
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    found: Callable[[int, int, int, int], int] = call
    return found


_call = _sync_file_range()


class _Thread:
    """Asks for what is in the line, in its turn; one for each process."""

    def __init__(self) -> None:
        self._line: SimpleQueue[_Request] = SimpleQueue()
        self._starting = threading.Lock()
        self._process = 0

    def put(self, request: _Request) -> bool:
        """Have something done unless there is too much to do; returns whether it will be."""
        if request[2] and self._line.qsize() >= MOST_WAITING:
            return False
        if self._process != os.getpid():
            self._start()
        self._line.put(request)
        return True

    def _start(self) -> None:
        with self._starting:
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._work, name="writeback", daemon=True).start()

    def _work(self) -> None:
        while True:
            fd, offset, length = self._line.get()
            if not length:
                os.close(fd)
            elif _call is not None:
                _call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)  # what fails, the sync will tell


def _after_fork() -> None:
    global _thread
    _thread = _Thread()


_thread = _Thread()
os.register_at_fork(after_in_child=_after_fork)


class Writeback:
    """Of one value; used by one thread at a time.

    Args:
        fd: of the file, open for as long as this is.
        begun: bytes that were there before.
    """

    __slots__ = ("_asked", "_fd", "_next", "_thread", "_value")

    def __init__(self, fd: int, begun: int = 0) -> None:
        self._value = fd
        self._fd = -1
        self._asked = begun
        self._next = begun + FIRST
        self._thread = _thread

    def written(self, end: int) -> None:
        """The file has so many bytes by now."""
        if end < self._next or _call is None:
            return
        self._next = end + STEP
        try:
            if self._fd < 0:
                # Its own, and not a copy of the value's, which would keep the value's lock.
                self._fd = os.open(f"/proc/self/fd/{self._value}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # too many files are open, say: all of it has to wait for the sync
        if self._thread.put((self._fd, self._asked, end - self._asked)):
            self._asked = end

    def close(self) -> None:
        """No more comes. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._thread.put((fd, 0, 0))
