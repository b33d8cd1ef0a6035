"""The cache in this process's memory: the least recently used values make room."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from .base import LARGEST_VALUE, Json, check_namespace, check_ttl, decode, encode
from .counts import Counts

ENTRIES = 10_000
BYTES = 64 << 20
OVERHEAD = 200
"""Bytes that an entry costs beside its key and value, roughly."""


class _Shelf:
    """The entries of a cache and all of its namespaces: (written value, end of its time)."""

    def __init__(self, entries: int, size: int, clock: Callable[[], float]) -> None:
        self.lock = threading.Lock()
        self.entries: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()
        self.most = entries
        self.largest = size
        self.size = 0
        self.clock = clock
        self.counts = Counts("memory")

    def remove(self, place: tuple[str, str]) -> bool:
        """Remove an entry, with the lock held; whether there was one."""
        entry = self.entries.pop(place, None)
        if entry is None:
            return False
        self.size -= cost(place, entry[0])
        return True


class MemoryCache:
    """Bounded by entries and by bytes; for any thread."""

    shared = False
    blocking = False

    def __init__(
        self,
        *,
        entries: int = ENTRIES,
        size: int = BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty cache.

        Args:
            entries: values it holds at most, in all namespaces together.
            size: bytes of keys and values at most, with what Python adds, roughly.
            clock: seconds.
        """
        self._shelf = _Shelf(entries, size, clock)
        self._name = ""

    def get(self, key: str, default: Json = None) -> Json:
        shelf, place = self._shelf, (self._name, key)
        with shelf.lock:
            entry = shelf.entries.get(place)
            if entry is not None and entry[1] <= shelf.clock():
                shelf.remove(place)
                entry = None
            if entry is not None:
                shelf.entries.move_to_end(place)
        if entry is None:
            shelf.counts.add("get", "miss")
            return default
        shelf.counts.add("get", "hit")
        # Read anew each time: a caller that changes its copy changes nobody else's.
        return decode(entry[0])

    def get_many(self, keys: Sequence[str]) -> list[Json]:
        return [self.get(key) for key in keys]

    def set(self, key: str, value: Json, ttl: float) -> None:
        shelf, place = self._shelf, (self._name, key)
        written = encode(value)
        end = shelf.clock() + check_ttl(ttl)
        too_large = len(written) > LARGEST_VALUE or cost(place, written) > shelf.largest
        with shelf.lock:
            shelf.remove(place)
            if not too_large:
                shelf.entries[place] = written, end
                shelf.size += cost(place, written)
                while len(shelf.entries) > shelf.most or shelf.size > shelf.largest:
                    shelf.remove(next(iter(shelf.entries)))
                    shelf.counts.evicted()
        shelf.counts.add("set", "too_large" if too_large else "done")

    def delete(self, key: str) -> None:
        with self._shelf.lock:
            self._shelf.remove((self._name, key))
        self._shelf.counts.add("delete", "done")

    def clear(self) -> None:
        shelf = self._shelf
        with shelf.lock:
            below = f"{self._name}:"
            for place in list(shelf.entries):
                if not self._name or place[0] == self._name or place[0].startswith(below):
                    shelf.remove(place)
        shelf.counts.add("clear", "done")

    def namespace(self, name: str) -> MemoryCache:
        check_namespace(name)
        inner = MemoryCache.__new__(MemoryCache)
        inner._shelf = self._shelf
        inner._name = f"{self._name}:{name}" if self._name else name
        return inner

    def close(self) -> None:
        """There is nothing to free."""


def cost(place: tuple[str, str], written: bytes) -> int:
    """Return what an entry counts towards the limit, in bytes."""
    return len(place[0]) + len(place[1]) + len(written) + OVERHEAD
