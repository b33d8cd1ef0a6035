"""A word that a running program is to end: one may give it, another waits for it with poll(2)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class StopSignal:
    """Set once, from any thread, also from a signal's handler. Closed by who made it."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.RLock()
        self._set = False
        self._closed = False
        self._heard: list[threading.Condition] = []

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
            heard = list(self._heard)
        for change in heard:
            with change:
                change.notify_all()

    @contextlib.contextmanager
    def heard_by(self, change: threading.Condition) -> Iterator[None]:
        """Wake who waits for a condition, too, while the block lasts."""
        with self._lock:
            self._heard.append(change)
        try:
            yield
        finally:
            with self._lock:
                self._heard.remove(change)

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
