"""Who may work on a repository at once: backups and restores together, prune and deletes alone.

restic refuses to prune or forget while a backup has its lock, and a backup while it prunes; the
gate makes the processes of this node wait for each other instead. Who needs the repository alone
waits for a moment without others; after its patience, those who come later wait for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from backupgw.runtime.restic import StopSignal

from .adapter import Stopped


class Gate:
    """Of one repository. For any thread."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._alone = False
        self._impatient = 0

    @contextlib.contextmanager
    def together(self, stop: StopSignal) -> Iterator[None]:
        """Be inside with others.

        Raises:
            Stopped: it was stopped while it waited.
        """
        with self._change, stop.heard_by(self._change):
            self._change.wait_for(lambda: stop.is_set or not (self._alone or self._impatient))
            if stop.is_set:
                raise Stopped("it was stopped")
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    @contextlib.contextmanager
    def alone(self, stop: StopSignal, patience: float) -> Iterator[None]:
        """Be inside without others.

        Args:
            patience: seconds after which who comes later has to wait.

        Raises:
            Stopped: it was stopped while it waited.
        """

        def free() -> bool:
            return stop.is_set or not (self._inside or self._alone)

        with self._change, stop.heard_by(self._change):
            since = time.monotonic()
            if not self._change.wait_for(free, timeout=patience):
                self._impatient += 1
                try:
                    self._change.wait_for(free)
                finally:
                    self._impatient -= 1
                    self._change.notify_all()
            if stop.is_set:
                raise Stopped(f"it was stopped after {time.monotonic() - since:.0f} s of waiting")
            self._alone = True
        try:
            yield
        finally:
            with self._change:
                self._alone = False
                self._change.notify_all()
