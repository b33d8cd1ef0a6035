"""When an event loop may write a small value itself, instead of having a thread do it.

Waking a thread and being woken by it takes longer than 64 KiB take into the page cache. But what
writes may also be stopped: by a journal that commits, by a disk that must make room. A thread that
stops costs one client, an event loop that stops costs all of them. So it is tried only

- where nothing is synced, for that is a wait for the disk every time;
- on file systems of this machine: one on a network can stop for ever;
- while it goes well. After a write that took longer than `SLOW`, the next `FEWEST` are left to
  threads, and after each further one twice as many, up to `MOST`; a run of `SETTLED` good ones
  begins anew.

The harm is bounded by that: where every write is slow, one of `MOST` stops the loop, for as long as
that one write takes.
"""

from __future__ import annotations

import hashlib
import os
import time

from .posixfs_writer import link_unnamed

LARGEST = 64 << 10
"""Bytes of a value that are written at once; more are worth a thread."""

SLOW = 1e-3
"""Seconds after which a write has held up a loop, whose clients wait as long for each other's
answers anyway."""

FEWEST, MOST = 16, 4096
SETTLED = 64

_UNNAMED = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC


class AtOnce:
    """Writes at once, as long as that goes well; for one folder.

    Threads that use one at the same time may count wrong, which only moves a pause.

    Args:
        mode: permission bits of new files.
    """

    __slots__ = ("_good", "_mode", "_pause", "_skip")

    def __init__(self, mode: int) -> None:
        self._mode = mode
        self._skip = 0
        self._pause = FEWEST
        self._good = 0

    def may(self, size: int) -> bool:
        """Whether a write may be tried now; each question in a pause brings its end nearer."""
        if size > LARGEST:
            return False
        if self._skip:
            self._skip -= 1
            return False
        return True

    def write(self, folder: int, segment: str, value: bytes, expected_hash: str | None) -> bool:
        """Write a new item into an open folder; False, and nothing was done, where that cannot be.

        Whatever is wrong, the ordinary way finds it, too, and has words for it. What exists is
        left to it as well.
        """
        if expected_hash is not None and hashlib.sha256(value).hexdigest() != expected_hash:
            return False
        start = time.perf_counter()
        written = self._write(folder, segment, value)
        self.took(time.perf_counter() - start)
        return written

    def _write(self, folder: int, segment: str, value: bytes) -> bool:
        try:
            fd = os.open(".", _UNNAMED, self._mode, dir_fd=folder)
        except OSError:
            return False
        try:
            if self._mode & 0o077:
                os.fchmod(fd, self._mode)
            if os.write(fd, value) != len(value):
                return False
            link_unnamed(fd, folder, segment)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def took(self, seconds: float) -> None:
        """Take note of how long a write took."""
        if seconds > SLOW:
            self._skip = self._pause
            self._pause = min(self._pause * 2, MOST)
            self._good = 0
        elif self._pause > FEWEST:
            self._good += 1
            if self._good >= SETTLED:
                self._pause = FEWEST
