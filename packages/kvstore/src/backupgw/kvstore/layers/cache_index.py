"""Which items of a cache were used when: what is evicted next, known without listing the cache.

The entries themselves are the truth. This is one process's view of them, made by listing the
cache when it is opened, and again, in short steps, whenever much was added: other processes that
share the cache add and evict, too.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from .cache_policy import CachePolicy

_RESCAN_SHARE = 4
"""Listed again after a share of 1/4 of the size limit was added."""

_STEP = 0.005
"""Seconds that one addition spends on a list in progress."""

Listed = Iterator[tuple[str, int, float]]
"""(name, size in bytes, last use in seconds since the epoch; 0 where that is not known)."""


class CacheIndex:
    """The entries below one namespace, least recently used first.

    Args:
        list_entries: lists the cache.
    """

    def __init__(self, policy: CachePolicy, list_entries: Callable[[], Listed]) -> None:
        self.policy = policy
        self._list_entries = list_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._total = 0
        self._added = 0
        self._listing: Listed | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        self._changed: set[str] = set()

    def fits(self, size: int) -> bool:
        """Whether an item of that size can be cached at all."""
        return self.policy.size is None or size <= self.policy.size

    def used(self, name: str, size: int) -> None:
        """An item was read or written just now."""
        with self._lock:
            self._put(name, size, time.time())

    def added(self, name: str, size: int) -> None:
        """An item was put into the cache just now."""
        with self._lock:
            self._put(name, size, time.time())
            self._added += size

    def removed(self, name: str) -> int | None:
        """An item is no longer in the cache; return its size if it was known."""
        with self._lock:
            self._changed.add(name)
            entry = self._entries.pop(name, None)
            if entry is None:
                return None
            self._total -= entry[0]
            return entry[0]

    def evictable(self, needed: int) -> list[str]:
        """Return, and forget, what must go so that `needed` more bytes fit, and what is too old."""
        now = time.time()
        going = []
        with self._lock:
            while self._entries:
                name, (size, last_use) = next(iter(self._entries.items()))
                max_age, limit = self.policy.max_age, self.policy.size
                old = max_age is not None and not (last_use and now - last_use <= max_age)
                if not (old or (limit is not None and self._total + needed > limit)):
                    break
                del self._entries[name]
                self._changed.add(name)
                self._total -= size
                going.append(name)
        return going

    def _put(self, name: str, size: int, last_use: float) -> None:
        self._changed.add(name)
        old = self._entries.pop(name, None)
        self._total += size - (old[0] if old else 0)
        self._entries[name] = (size, last_use)

    # -- listing again

    def rescan(self, *, whole: bool) -> None:
        """List the cache, all of it, or for a moment if that is due or under way.

        Raises what the listing raises; the index stays as it was.
        """
        with self._lock:
            limit = self.policy.size
            due = limit is not None and self._added * _RESCAN_SHARE > limit
            if not (whole or due or self._listing is not None):
                return
            if self._listing is None or whole:
                self._listing, self._added = self._list_entries(), 0
                self._seen, self._changed = {}, set()
            end = None if whole else time.monotonic() + _STEP
            try:
                for name, size, last_use in self._listing:
                    self._seen[name] = (size, last_use)
                    if end is not None and time.monotonic() > end:
                        return
                self._take_over()
            except BaseException:
                self._listing = None
                raise

    def _take_over(self) -> None:
        """Bring the index in line with the list. What changed meanwhile is known better here."""
        merged = dict(self._seen)
        for name in self._changed:
            merged.pop(name, None)
        for name, (size, last_use) in self._entries.items():
            if name in self._changed:
                merged[name] = (size, last_use)
            elif name in merged:
                merged[name] = (merged[name][0], max(last_use, merged[name][1]))
        self._entries = OrderedDict(
            sorted(merged.items(), key=lambda entry: (entry[1][1], entry[0]))
        )
        self._total = sum(size for size, _ in self._entries.values())
        self._listing, self._seen, self._changed = None, {}, set()
