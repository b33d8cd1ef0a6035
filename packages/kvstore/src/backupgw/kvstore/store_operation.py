"""One operation of a Store: in a slot, counted, and told to the log."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from .slots import Slots
from .statistics import Statistics

logger = logging.getLogger("backupgw.kvstore.store")  # where users of borgstore look for it


class StoreOperation:
    """Runs an operation in one of the slots; counts it if it ends well, logs it anyway.

    Args:
        statistics: where it is counted; None for what borgstore does not count.

    Attributes:
        volume: what it moved, in bytes; None for those that move nothing.
    """

    __slots__ = ("_name", "_slots", "_start", "_statistics", "_what", "volume")

    def __init__(self, slots: Slots, statistics: Statistics | None, what: str, name: str) -> None:
        self._slots = slots
        self._statistics = statistics
        self._what = what
        self._name = name
        self._start = 0
        self.volume: int | None = None

    def __enter__(self) -> Self:
        self._slots.__enter__()
        self._start = time.perf_counter_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        took = time.perf_counter_ns() - self._start
        self._slots.__exit__()
        if kind is None:
            if self._statistics is not None:
                self._statistics.finish(self._what, took, self.volume)
            logger.debug(
                "%s %r -> %s B in %.1f ms", self._what, self._name, self.volume or 0, took / 1e6
            )
        elif issubclass(kind, Exception):
            logger.debug("%s %r -> %s", self._what, self._name, kind.__name__)
