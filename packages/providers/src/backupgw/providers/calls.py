"""Requests to a provider's service, counted: some of them are billed, and all have limits.

What a request costs depends on its class, as the service's own price list has it. Requests that
were repeated count as often as they were sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FREE = "free"
UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class CostClasses:
    """Which class a request belongs to.

    Attributes:
        classes: names of requests, or how their names begin, by class; the longest that fits
            counts.
        rest: the class of all others.
        source: the page that says so.
    """

    classes: Mapping[str, tuple[str, ...]]
    rest: str
    source: str

    def of(self, call: str) -> str:
        """Return the class of a request."""
        fitting = [
            (len(start), name)
            for name, starts in self.classes.items()
            for start in starts
            if call.startswith(start)
        ]
        return max(fitting)[1] if fitting else self.rest


class Calls:
    """How often each request was sent. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, call: str) -> None:
        """Count one request."""
        with self._lock:
            self._counts[call] += 1

    def add(self, counts: Mapping[str, int]) -> None:
        """Count requests of another process."""
        with self._lock:
            self._counts.update(counts)

    def counts(self) -> dict[str, int]:
        """Return the requests so far, by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def take(self) -> dict[str, int]:
        """Return the requests since the last time, by name, and begin anew."""
        with self._lock:
            taken = dict(sorted(self._counts.items()))
            self._counts.clear()
        return taken


class CallLog:
    """Requests that other processes send, such as the server that restic's bytes go through: a line
    each in a file of its own, which outlives whoever is killed. Can be pickled.

    Args:
        folder: where such files lie; `read_logs` finds them there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{secrets.token_hex(8)}.calls"
        self._fd = -1
        self._lock = threading.Lock()

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._lock = threading.Lock()

    def __call__(self, call: str) -> None:
        """Note one request. What cannot be noted is no reason not to send it."""
        with self._lock, contextlib.suppress(OSError):
            if self._fd < 0:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_SH)  # as long as this process lives
            os.write(self._fd, f"{call}\n".encode())


def read_logs(folder: Path) -> dict[str, int]:
    """Return the requests that processes noted which have ended, and forget them."""
    found: Counter[str] = Counter()
    for path in sorted(folder.glob("*.calls")):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it goes on
            lines = file.read().decode(errors="replace").splitlines()
            path.unlink()
            found.update(lines)
    return dict(sorted(found.items()))
