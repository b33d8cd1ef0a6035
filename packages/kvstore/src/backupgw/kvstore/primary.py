"""Calls of a Store to its place: counted, and as slow as somebody wants a place to be.

`BORGSTORE_LATENCY` (microseconds) and `BORGSTORE_BANDWIDTH` (bits per second) give such a call a
least duration, as in borgstore 0.7; calls to a cache are not slowed down.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from .statistics import Statistics

logger = logging.getLogger(__name__)

T = TypeVar("T")

LATENCY = "BORGSTORE_LATENCY"
BANDWIDTH = "BORGSTORE_BANDWIDTH"


@dataclass(frozen=True, slots=True)
class Emulation:
    """How slow a place is made: seconds a call, and bytes per second (0 for as fast as it is)."""

    latency: float = 0.0
    bandwidth: float = 0.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read borgstore's variables. Raises ValueError naming the one that is no number."""
        return cls(_number(environment, LATENCY) / 1e6, _number(environment, BANDWIDTH) / 8)

    def least(self, volume: int) -> float:
        """Return the seconds that a call must take which moves so many bytes."""
        return self.latency + (volume / self.bandwidth if self.bandwidth else 0.0)


def _number(environment: Mapping[str, str], name: str) -> float:
    text = environment.get(name, "").strip() or "0"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a number of at least 0, not {text!r}")
    return number


class Primary:
    """Makes the calls of one Store."""

    def __init__(self, statistics: Statistics, emulation: Emulation) -> None:
        self._statistics = statistics
        self.emulation = emulation
        self._slow = emulation != Emulation()

    def call(
        self,
        work: Callable[[], T],
        key: str | None = None,
        volume: int | Callable[[T], int] = 0,
    ) -> T:
        """Return what `work` returns, counted as `backend_KEY_calls` and `backend_KEY_volume`.

        Args:
            volume: bytes that it moves, or how to tell them from the result.
        """
        start = time.perf_counter() if self._slow else 0.0
        try:
            result = work()
        except BaseException:
            if key is not None:
                self._statistics.place_failed(key)
            raise
        moved = volume(result) if callable(volume) else volume
        if key is not None:
            self._statistics.place_called(key, moved)
        if self._slow:
            rest = self.emulation.least(moved) - (time.perf_counter() - start)
            if rest > 0:
                time.sleep(rest)  # the emulated distance, not a wait for anything
        return result
