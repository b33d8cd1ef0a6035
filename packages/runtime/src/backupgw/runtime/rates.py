"""How much somebody may do in a time, counted by all workers of a gateway together.

Each key has one number: the moment until which it has used up its rate (the generic cell rate
algorithm, ITU-T I.371). It lies in memory that the workers share, so that a client is held to one
rate whichever of them its connections went to. Memory is bounded: keys that have nothing used up
make room for others, and where there are none, the one that has used up least.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator

SHARED_VARIABLE = "BACKUPGW_SHARED_FOLDER"
"""Environment variable by which the supervisor tells its workers of a folder that is theirs."""

SLOTS = 8192
_PROBES = 16
_SLOT = struct.Struct("=Qd")


class Rates:
    """Counts for one service.

    Args:
        name: of the service: workers with the same name share their counts.
        clock: seconds since the machine was started, the same in all processes.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._own = threading.Lock()
        self._file = -1
        size = SLOTS * _SLOT.size
        if folder := os.environ.get(SHARED_VARIABLE):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(os.path.join(folder, f"rates-{name}"), flags, 0o600)
            os.ftruncate(self._file, size)
        self._slots = mmap.mmap(self._file, size)

    def close(self) -> None:
        """Let go of the memory."""
        self._slots.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def take(self, key: str, rate: float, burst: float) -> float:
        """Use one unit up if the rate allows it.

        Args:
            rate: units a second.
            burst: units that may be used at once after a pause, at least 1.

        Returns:
            0 where it does, else in how many seconds it will; then nothing was used up.
        """
        with self._locked():
            now = self._clock()
            at, until = self._find(key, now)
            wait = until + 1 / rate - now - burst / rate
            if wait > 1e-9:
                return wait
            self._put(at, key, until + 1 / rate)
        return 0.0

    def spend(self, key: str, amount: float, rate: float, burst: float) -> float:
        """Use up an amount, whether the rate allows it or not.

        Args:
            rate: units a second.
            burst: units that may be used at once after a pause.

        Returns:
            How many seconds to wait before the next amount.
        """
        with self._locked():
            now = self._clock()
            at, until = self._find(key, now)
            until += amount / rate
            self._put(at, key, until)
        return max(until - now - burst / rate, 0.0)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._own:
            if self._file < 0:
                yield
                return
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _find(self, key: str, now: float) -> tuple[int, float]:
        """Return a key's slot, or the one that it may have, and until when it has used its rate."""
        wanted = _number(key)
        least, oldest = 0, 0.0
        for probe in range(_PROBES):
            at = (wanted + probe) % SLOTS * _SLOT.size
            found, until = _SLOT.unpack_from(self._slots, at)
            if found == wanted:
                return at, max(until, now)
            if probe == 0 or until < oldest:
                least, oldest = at, until
        return least, now

    def _put(self, at: int, key: str, until: float) -> None:
        _SLOT.pack_into(self._slots, at, _number(key), until)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") or 1
