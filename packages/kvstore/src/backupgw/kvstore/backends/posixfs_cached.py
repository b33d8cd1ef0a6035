"""Small items that the page cache holds, read without letting go of the interpreter's lock.

An ordinary read gives the lock back around each system call. That is right for calls which wait;
but for an item in the page cache they take a microsecond each, and threads that load such items
then spend three times as long on passing the lock around as one thread needs for the loads. Nothing
here waits for a disk: what the cache cannot tell at once is left to the ordinary way.

Threads that open and load such items take turns (`take_turn`). None of them could do anything
meanwhile, and who waits for a turn sleeps until there is one, where who waits for the interpreter's
lock wakes every 5 ms, on another processor: that took eight threads a third of their changes of
threads, and some per cent of their pace.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

LARGEST = 64 << 10
"""Bytes read this way; copying more is worth letting other threads run."""

PATIENCE = 1.0
"""Seconds after which a turn is not waited for: a signal's handler may have lost it."""

_turn: SimpleQueue[None] = SimpleQueue()  # no lock: it would change hands with each load
take_turn = _turn.get
"""Wait for the turn, `(True, PATIENCE)`; raises queue.Empty."""
end_turn = _turn.put
"""Let others have a turn. Also after waiting in vain: one turn too many costs but time, one too few
would hold up every load."""
end_turn(None)

_HERE = 0x1000 | 0x4000  # AT_EMPTY_PATH | AT_STATX_DONT_SYNC
_WANTED = 0x001 | 0x200  # STATX_TYPE | STATX_SIZE


class _Statx(ctypes.Structure):
    """The beginning of `struct statx`, which is the same on every architecture."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("spare", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 208),
    )


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Buffers(threading.local):
    """What a thread's calls fill, made once: making it anew would take longer than the calls."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(LARGEST)
        self.bytes_at = ctypes.addressof(self._bytes)
        self.vector = _Iovec(self.bytes_at, 0)
        self.vector_at = ctypes.addressof(self.vector)
        self.status = _Statx()
        self.status_at = ctypes.addressof(self.status)


_library = ctypes.PyDLL(None, use_errno=True)
_close = _library.close


def _function(name: str, result: type[Any], *arguments: type[Any]) -> Callable[..., int] | None:
    """Return a function of the C library, None where it has none of that name."""
    function = getattr(_library, name, None)
    if function is not None:
        function.restype = result
        function.argtypes = arguments
    return function


_statx = _function(
    "statx",
    ctypes.c_int,
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p),
)
_preadv2 = _function(
    "preadv2",  # its off_t has 64 bits wherever pointers have
    ctypes.c_ssize_t,
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_int),
)
_BUFFERS = _Buffers()


def load(fd: int, offset: int, size: int | None) -> bytes | None:
    """Return a range of a regular file as `Backend.load` does, and close `fd`.

    Returns:
        None, with `fd` still open, where that is not to be had at once: the item is large, not
        cached or no regular file.
    """
    if _statx is None or _preadv2 is None:
        return None
    buffers = _BUFFERS
    status = buffers.status
    if _statx(fd, b"", _HERE, _WANTED, buffers.status_at) or not stat.S_ISREG(status.mode):
        return None
    total = status.size
    if total > LARGEST:
        return None
    position = max(total + offset, 0) if offset < 0 else offset
    want = max(total - position, 0)
    if size is not None:
        want = max(min(size, want), 0)
    if want:
        buffers.vector.length = want
        if _preadv2(fd, buffers.vector_at, 1, position, os.RWF_NOWAIT) != want:
            return None
    _close(fd)
    return ctypes.string_at(buffers.bytes_at, want)
