"""What a Store counts: calls, time and volume, under borgstore's keys. Exact among threads."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict

_CALLS = ("info", "load", "store", "delete", "move", "list", "gather")
_VOLUMES = ("load", "store", "gather")
_ALWAYS = (
    "backend_load_calls",
    "backend_gather_calls",
    "backend_store_calls",
    "backend_delete_calls",
    "backend_load_volume",
    "backend_gather_volume",
    "backend_store_volume",
    "cache_hits",
    "cache_misses",
    "cache_errors",
    "cache_load_calls",
    "cache_store_calls",
    "cache_delete_calls",
    "cache_load_volume",
    "cache_store_volume",
)


class Statistics:
    """Counters that many threads add to; times are kept in nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(self, counts: dict[str, int]) -> None:
        """Add to several counters at once: no reader sees one without the other."""
        with self._lock:
            for key, count in counts.items():
                self._counts[key] += count

    def count(self, key: str, amount: int) -> None:
        """Add to one counter."""
        with self._lock:
            self._counts[key] += amount

    def finish(self, operation: str, nanoseconds: int, volume: int | None = None) -> None:
        """Count a call that ended well, with its time and, if it has one, its volume in bytes."""
        calls, took, moved = _keys(operation)
        with self._lock:
            self._counts[calls] += 1
            self._counts[took] += nanoseconds
            if volume is not None:
                self._counts[moved] += volume

    def place_called(self, operation: str, volume: int) -> None:
        """Count a call to the place that ended well, with its volume in bytes."""
        calls, moved = _place_keys(operation)
        with self._lock:
            self._counts[calls] += 1
            self._counts[moved] += volume

    def place_failed(self, operation: str) -> None:
        """Count a call to the place that raised."""
        self.count(_place_keys(operation)[0], 1)

    def as_dict(self) -> dict[str, float]:
        """Return borgstore's keys: `_calls`, `_time` in seconds, `_volume` in bytes, `_throughput`
        in bytes per second. The cache's are zero where there is none."""
        with self._lock:
            result: dict[str, float] = dict(self._counts)
        for key in _ALWAYS:
            result.setdefault(key, 0)
        for operation in _CALLS:
            result.setdefault(f"{operation}_calls", 0)
            result.setdefault(f"{operation}_time", 0)
        for key in [key for key in result if key.endswith("_time")]:
            result[key] /= 1e9
        for operation in _VOLUMES:
            volume = result.setdefault(f"{operation}_volume", 0)
            time = result[f"{operation}_time"]
            result[f"{operation}_throughput"] = volume / time if time else 0
        asked = result["cache_hits"] + result["cache_misses"]
        result["cache_disabled"] = False
        result["cache_hit_ratio"] = result["cache_hits"] / asked if asked else 0
        return result


@functools.cache
def _place_keys(operation: str) -> tuple[str, str]:
    return f"backend_{operation}_calls", f"backend_{operation}_volume"


@functools.cache
def _keys(operation: str) -> tuple[str, str, str]:
    return f"{operation}_calls", f"{operation}_time", f"{operation}_volume"
