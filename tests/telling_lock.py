"""A lock by which a test knows that another thread has got as far as it."""

from __future__ import annotations

import threading


class TellingLock:
    """Sets an event when somebody finds it taken, and then waits for it.

    Args:
        found_taken: set then.
    """

    def __init__(self, found_taken: threading.Event) -> None:
        self._found_taken = found_taken
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._found_taken.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
