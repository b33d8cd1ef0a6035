"""How much somebody may do in a time, counted by all workers of a gateway together.

Each key has one number: the moment until which it has used up its rate (the generic cell rate
algorithm, ITU-T I.371). It lies in memory that the workers share, so that a client is held to one
rate whichever of them its connections went to. Memory is bounded: keys that have nothing used up
make room for others, and where there are none, the one that has used up least.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .between_workers import SharedTable

SLOTS = 8192


class Rates:
    """Counts for one service.

    Args:
        name: of the service: workers with the same name share their counts.
        clock: seconds since the machine was started, the same in all processes.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = SharedTable(f"rates-{name}", numbers=1, slots=SLOTS)

    def close(self) -> None:
        """Let go of the memory."""
        self._until.close()

    def take(self, key: str, rate: float, burst: float) -> float:
        """Use one unit up if the rate allows it.

        Args:
            rate: units a second.
            burst: units that may be used at once after a pause, at least 1.

        Returns:
            0 where it does, else in how many seconds it will; then nothing was used up.
        """
        with self._until.locked():
            now = self._clock()
            at, until = self._find(key, now)
            wait = until + 1 / rate - now - burst / rate
            if wait > 1e-9:
                return wait
            self._until.put(at, key, until + 1 / rate)
        return 0.0

    def spend(self, key: str, amount: float, rate: float, burst: float) -> float:
        """Use up an amount, whether the rate allows it or not.

        Args:
            rate: units a second.
            burst: units that may be used at once after a pause.

        Returns:
            How many seconds to wait before the next amount.
        """
        with self._until.locked():
            now = self._clock()
            at, until = self._find(key, now)
            until += amount / rate
            self._until.put(at, key, until)
        return max(until - now - burst / rate, 0.0)

    def _find(self, key: str, now: float) -> tuple[int, float]:
        """Return a key's slot, and until when it has used its rate."""
        at, found = self._until.find(key)
        return at, now if found is None else max(found[0], now)
