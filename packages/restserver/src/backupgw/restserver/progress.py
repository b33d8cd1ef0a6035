"""A progress bar for commands that take long, where there is a terminal to show it."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Self

from .amounts import size_text

_BAR = 24
_PAUSE = 0.2
"""Seconds between two drawings."""


class Progress:
    """A line on standard error that is drawn anew. A context manager; `step` from any thread.

    Args:
        total: bytes, 0 where nobody knows.
        quiet: draw nothing.
    """

    def __init__(self, total: int = 0, *, quiet: bool = False) -> None:
        self._total = total
        self._shown = not quiet and sys.stderr.isatty()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._first = 0
        self._drawn = 0.0
        self._objects = 0
        self._bytes = 0

    def begin_at(self, objects: int, size: int) -> None:
        """Begin with what was done before, by an earlier run."""
        self._objects, self._bytes, self._first = objects, size, size

    def step(self, size: int) -> None:
        """Count one more object of `size` bytes."""
        with self._lock:
            self._objects += 1
            self._bytes += size
            now = time.monotonic()
            if self._shown and now - self._drawn >= _PAUSE:
                self._drawn = now
                self._draw(now)

    def say(self, line: str) -> None:
        """Print a line to standard output, without a bar in its middle."""
        with self._lock:
            self._erase()
            print(line, flush=True)  # noqa: T201

    def _draw(self, now: float) -> None:
        seconds = max(now - self._began, 0.001)
        rate = (self._bytes - self._first) / seconds
        text = f"{self._objects} objects, {size_text(self._bytes)}, {size_text(rate)}/s"
        if self._total:
            done = min(self._bytes / self._total, 1.0)
            full = int(done * _BAR)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {done:4.0%} {text}"
            if rate > 0:
                left = max(self._total - self._bytes, 0) / rate
                text += f", {left // 3600:.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f} left"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()

    def _erase(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._erase()
