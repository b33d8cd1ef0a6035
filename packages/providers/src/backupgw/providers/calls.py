"""Requests to a provider's service, counted: some of them are billed, and all have limits.

What a request costs depends on its class, as the service's own price list has it. Requests that
were repeated count as often as they were sent.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

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
