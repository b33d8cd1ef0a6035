"""Locks on ranges of a file's bytes, held by open file descriptions: taken, waited for, let go of.

They are waited for in the kernel (fcntl(2), F_OFD_SETLKW), which nobody calls a thread back from:
who is patient for a while only has a thread of its own wait.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable

from .errors import LedgerError, NameBusy

_FLOCK = struct.Struct("hhqqi0q")
pack = _FLOCK.pack
SETLK, SET = fcntl.F_OFD_SETLK, os.SEEK_SET  # how `at_once` locks, and where bytes are counted from
EXCLUSIVE, UNLOCKED = fcntl.F_WRLCK, fcntl.F_UNLCK

# Without handing the interpreter's lock around as the fcntl module does: what does not wait is
# done before another thread would have begun, and an upload locks and unlocks five times.
at_once = ctypes.PyDLL(None, use_errno=True).fcntl
at_once.restype = ctypes.c_int
at_once.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p)


def span(kind: int, byte: int, length: int = 1) -> bytes:
    """Return what the kernel takes: F_RDLCK, F_WRLCK or F_UNLCK, and which bytes, 0 for all."""
    return pack(kind, os.SEEK_SET, byte, length, 0)


def set_lock(fd: int, flock: bytes) -> bool:
    """Lock or unlock bytes; return False where somebody else has them. Raises LedgerError."""
    return at_once(fd, SETLK, flock) == 0 or refused()


def refused() -> bool:
    """Return False where somebody else has the bytes; raise LedgerError for all else."""
    code = ctypes.get_errno()
    if code in (errno.EAGAIN, errno.EACCES):
        return False
    raise LedgerError(f"the ledger's locks: {os.strerror(code)}")


def attempt(fd: int, kind: int, byte: int) -> bool:
    """Lock a byte if nobody else has it; returns whether that is so. Raises LedgerError."""
    return set_lock(fd, span(kind, byte))


def drop(fd: int, byte: int) -> None:
    """Unlock a byte. Raises LedgerError."""
    set_lock(fd, span(fcntl.F_UNLCK, byte))


class Waiter(threading.Thread):
    """Waits in the kernel for a lock, which nobody can call it back from: a descriptor whose lock
    nobody waits for any more is closed as soon as it has it."""

    def __init__(self, fd: int, flock: bytes, close: Callable[[int], None]) -> None:
        super().__init__(name="ledger-waiter", daemon=True)
        self._fd, self._flock, self._close = fd, flock, close
        self._lock = threading.Lock()
        self._over = self._given_up = False
        self._error: OSError | None = None

    def run(self) -> None:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, self._flock)
        except OSError as error:
            self._error = error
        with self._lock:
            self._over = True
            given_up = self._given_up
        if given_up:
            self._close(self._fd)

    def within(self, seconds: float) -> None:
        """Wait so long at most. Raises NameBusy: the descriptor is not the caller's any more."""
        self.start()
        self.join(seconds)
        with self._lock:
            self._given_up = not self._over
        if self._given_up:
            raise NameBusy(f"the name is held for more than {seconds:g} s", retryable=True)
        if self._error is not None:
            raise LedgerError(f"the ledger's locks: {self._error.strerror}") from self._error
