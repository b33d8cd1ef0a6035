"""What a server has promised by its answers, and whether a folder keeps it.

A promise is an acknowledgement that had been received before the power was cut; the cut itself is
noted here first, so that whatever arrives while it happens does not count. A request without such
an answer may have taken effect or not: both are right, but a stored value is whole in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.visible import on_disk


@dataclass
class State:
    """What must be true of one name."""

    present: bool = False
    open: bool = False
    """A request that would change `present` was sent and not acknowledged."""


@dataclass
class Promises:
    """Shared by all clients of one server."""

    cut_after: int = 0
    """The acknowledgement after which `cut` is called, in the thread that received it; 0: never."""
    cut: Callable[[], None] | None = None
    kept: int = 0
    """Acknowledgements that count."""
    unexpected: list[str] = field(default_factory=list)
    """Answers that no sound server gives."""
    is_cut: threading.Event = field(default_factory=threading.Event)
    _states: dict[str, State] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, path: str, *, present: bool) -> None:
        """A request that stores or removes `path` is about to be sent."""
        with self._lock:
            state = self._states.setdefault(path, State())
            if state.present != present:
                state.open = True

    def acknowledged(self, path: str, *, present: bool) -> None:
        """The 200 of that request has been received."""
        with self._lock:
            if self.is_cut.is_set():
                return
            self._states[path] = State(present=present)
            self.kept += 1
            if self.kept == self.cut_after:
                self._cut_now()

    def surprise(self, line: str) -> None:
        """An answer came that no sound server gives; after the cut anything may happen."""
        with self._lock:
            if not self.is_cut.is_set():
                self.unexpected.append(line)

    def cut_now(self) -> None:
        """Stop counting, then cut the power; once."""
        with self._lock:
            self._cut_now()

    def _cut_now(self) -> None:
        if not self.is_cut.is_set():
            self.is_cut.set()
            if self.cut is not None:
                self.cut()

    def broken(self, root: Path) -> list[str]:
        """Promises that the folder does not keep, one line each. Contents are not looked at."""
        found = []
        for path, state in self._states.items():
            exists = on_disk(root, path).exists()
            if not state.open and exists != state.present:
                found.append(f"{'lost' if state.present else 'back again'}: {path}")
        return found
