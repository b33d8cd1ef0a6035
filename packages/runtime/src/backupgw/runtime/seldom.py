"""Log lines that others could make us write at will: of each kind one now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

_PAUSE = 60.0
_KINDS = 1000


class Seldom:
    """Says when a line of a kind is due: at once, then again after a pause at the earliest.

    Not for several threads at a time: two of them may both be told that a line is due.

    Args:
        pause: seconds from one line of a kind to the next.
        kinds: told apart at most in a pause; all beyond them count as one more.
    """

    def __init__(
        self,
        pause: float = _PAUSE,
        kinds: int = _KINDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pause = pause
        self._kinds = kinds
        self._clock = clock
        self._told: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable) -> str | None:
        """Return what to put behind a line that is due: nothing, or how many were left out since
        the last one. None: it is not due."""
        now = self._clock()
        if kind not in self._told and len(self._told) >= self._kinds:
            over = [each for each, (at, _) in self._told.items() if now - at >= self._pause]
            for each in over:
                del self._told[each]
            if not over:
                kind = None
        at, left_out = self._told.get(kind, (now - self._pause, 0))
        if now - at < self._pause:
            self._told[kind] = (at, left_out + 1)
            return None
        self._told[kind] = (now, 0)
        return f" ({left_out} more like this since the last such line)" if left_out else ""
