"""Work in the background gives way to clients.

Python runs one thread at a time, so a task that deletes or counts files by the thousand would take
half of every moment from the requests of its process, and on few processors from those of others.
It therefore works in slices, and rests after each one while clients ask for things.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from pathlib import Path

from backupgw.runtime.jobs import JobContext

SLICE = 0.002
"""Seconds of work until the next rest."""
BUSY = 1.0
"""Seconds after a request in which there may be another."""
_TIME = struct.Struct("d")


class Traffic:
    """When somebody asked for something last, of all processes of this machine that have the file.

    Args:
        path: of the file, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self._shared = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)

    def note(self) -> None:
        """Somebody asks."""
        with contextlib.suppress(TypeError, ValueError):  # closed: the gateway stops
            _TIME.pack_into(self._shared, 0, time.monotonic())

    def busy(self) -> bool:
        """Whether somebody asked just now."""
        last: float = _TIME.unpack_from(self._shared, 0)[0]
        return 0 <= time.monotonic() - last < BUSY

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()


class Pace:
    """Of one task.

    Args:
        rest: how many times as long as a slice the rest after it is.
    """

    def __init__(self, context: JobContext, traffic: Traffic, *, rest: float) -> None:
        self._context = context
        self._traffic = traffic
        self._rest = rest
        self._since = time.monotonic()

    def step(self) -> None:
        """Rest, if it is time; called between two pieces of work.

        Raises:
            JobStopped: the task is to stop.
        """
        worked = time.monotonic() - self._since
        if worked < SLICE:
            return
        self._context.check()
        if self._traffic.busy():
            self._context.wait(worked * self._rest)
        self._since = time.monotonic()
