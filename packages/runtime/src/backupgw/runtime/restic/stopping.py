"""A word that a running program is to end: one may give it, another waits for it with poll(2)."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self


class StopSignal:
    """Set once, from any thread, also from a signal's handler. Closed by who made it."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.RLock()
        self._set = False
        self._closed = False

    def fileno(self) -> int:
        """A descriptor that is readable once it is set."""
        return self._descriptor

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Say it."""
        with self._lock:
            if not self._set and not self._closed:
                self._set = True
                os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
