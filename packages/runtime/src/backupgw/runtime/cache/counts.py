"""The metrics that caches share."""

from __future__ import annotations


class Counts:
    """Counts a cache's look-ups: hit, miss, error, skipped (its server is known to be away)."""

    def __init__(self, kind: str) -> None:
        # Imported late: whoever serves nothing needs no prometheus_client.
        from backupgw.runtime import metrics

        self._kind = kind
        self._requests = metrics.counter(
            "backupgw_cache_requests_total",
            "Requests to a cache. get: hit, miss; others: done; all: error, skipped, too_large.",
            ("cache", "operation", "result"),
        )
        self._evictions = metrics.counter(
            "backupgw_cache_evictions_total", "Values that made room for others.", ("cache",)
        )
        self._available = metrics.gauge(
            "backupgw_cache_available", "Processes whose cache answers.", ("cache",)
        )

    def add(self, operation: str, result: str) -> None:
        self._requests.add(1, self._kind, operation, result)

    def evicted(self) -> None:
        self._evictions.add(1, self._kind)

    def available(self, *, yes: bool) -> None:
        self._available.set(int(yes), self._kind)
