"""A circuit breaker: a server that is away is asked seldom, and by one caller at a time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable


class Breaker:
    """Opens after some failures in a row; then lets one try pass after a pause that doubles.

    For any thread. Each `allows` that returns True is followed by `succeeded` or `failed`.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        first: float = 1.0,
        longest: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a closed one.

        Args:
            failures: in a row that open it.
            first: seconds of the first pause; doubled by each try that fails.
            longest: seconds of a pause at most.
            clock: seconds, monotonic.
        """
        self._limit = failures
        self._first = first
        self._longest = longest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether the server is taken to be away."""
        return self._failures >= self._limit

    def allows(self) -> bool:
        """Whether to ask the server now."""
        if self._failures < self._limit:
            return True
        with self._lock:
            if self._failures < self._limit:
                return True
            if self._trying or self._clock() < self._until:
                return False
            self._trying = True
            return True

    def succeeded(self) -> bool:
        """Note an answer; return whether that closed it."""
        if self._failures == 0:
            return False
        with self._lock:
            was_open = self.open
            self._failures = 0
            self._trying = False
            return was_open

    def failed(self) -> bool:
        """Note a failure; return whether that opened it."""
        with self._lock:
            was_open = self.open
            if was_open and not self._trying:
                return False  # one that had set out before it opened
            self._failures += 1
            self._trying = False
            if self.open:
                pause = self._first * 2.0 ** min(self._failures - self._limit, 30)
                # Half of it random: gateways that lost the same server do not return as one.
                pause = min(self._longest, pause) * (0.5 + random.random() / 2)  # noqa: S311
                self._until = self._clock() + pause
            return self.open and not was_open
