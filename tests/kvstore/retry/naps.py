"""A clock that only sleeping moves, and the error that makes a layer sleep."""

from __future__ import annotations

from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError
from backupgw.kvstore.layers.retry_schedule import Schedule


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def schedule(self, attempts: int = 5, deadline: float = 120.0) -> Schedule:
        return Schedule(
            attempts=attempts,
            deadline=deadline,
            first=1.0,
            longest=10.0,
            clock=self.clock,
            sleep=self.sleep,
            uniform=lambda _, most: most,
        )


def broken(retry_after: float | None = None) -> BackendError:
    return BackendConnectionError("connection reset", retry_after=retry_after)
