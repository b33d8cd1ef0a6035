"""Progress of something that takes long: a bar on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

from .output import size_text

BAR_INTERVAL = 0.25
LINE_INTERVAL = 5.0
_WINDOW = 10.0
"""Seconds over which the rate is taken."""
_WIDTH = 20


class Show(Enum):
    """Where progress goes."""

    BAR = "bar"
    """To standard error, drawn again and again."""
    LINES = "lines"
    """To standard output, a JSON object every few seconds."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class State:
    """How far it is. Bytes and items; None where the total is not known (yet)."""

    bytes: int
    items: int
    total_bytes: int | None = None
    total_items: int | None = None


class Progress:
    """Shows a state while its `with` block runs.

    Args:
        state: called from another thread.
        interval: seconds between two looks; default by what is shown.
    """

    def __init__(
        self, state: Callable[[], State], show: Show, *, interval: float | None = None
    ) -> None:
        self._state = state
        self._show = show
        default = BAR_INTERVAL if show is Show.BAR else LINE_INTERVAL
        self._interval = default if interval is None else interval
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._drawn = False
        self._seen: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def say(self, text: str) -> None:
        """Write a line to standard error, above the bar."""
        with self._lock:
            self._erase()
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def record(self, record: dict[str, object]) -> None:
        """Write a JSON line to standard output."""
        with self._lock:
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()

    def __enter__(self) -> Self:
        self._seen.append((time.monotonic(), self._state().bytes))
        if self._show is not Show.NOTHING:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._erase()
            if self._show is Show.BAR:
                sys.stderr.flush()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            state = self._state()
            rate = self._rate(state.bytes)
            try:
                if self._show is Show.LINES:
                    self.record(_record(state, rate))
                else:
                    self._draw(bar_text(state, rate, shutil.get_terminal_size().columns - 1))
            except OSError:
                return  # nobody reads; what the command itself writes will say so

    def _rate(self, done: int) -> float:
        now = time.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        began, before = self._seen[0]
        return max(0.0, (done - before) / (now - began)) if now > began else 0.0

    def _draw(self, text: str) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = False


def bar_text(state: State, rate: float, width: int) -> str:
    """Return the bar's line, at most `width` characters long."""
    total = state.total_bytes
    if total is None:
        text = f"{size_text(state.bytes)}, {state.items} items, {size_text(rate)}/s"
    else:
        share = min(1.0, state.bytes / total) if total else 1.0
        full = int(share * _WIDTH)
        items = f"{state.items}/{state.total_items}" if state.total_items else f"{state.items}"
        left = left_seconds(state, rate)
        text = (
            f"[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%} "
            f"{size_text(state.bytes)} of {size_text(total)}, {items} items, {size_text(rate)}/s, "
            f"{'?' if left is None else _duration(left)} left"
        )
    return text[: max(1, width)]


def left_seconds(state: State, rate: float) -> float | None:
    """Return the seconds that are left at this rate, None where nobody can say."""
    if state.total_bytes is None:
        return None
    if state.bytes >= state.total_bytes:
        return 0.0
    return (state.total_bytes - state.bytes) / rate if rate > 0 else None


def _record(state: State, rate: float) -> dict[str, object]:
    left = left_seconds(state, rate)
    return {
        "event": "progress",
        "bytes": state.bytes,
        "items": state.items,
        "total_bytes": state.total_bytes,
        "total_items": state.total_items,
        "bytes_per_second": round(rate),
        "seconds_left": None if left is None else round(left),
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
