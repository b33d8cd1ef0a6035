"""Metrics for Prometheus, of this process or of all workers together.

With several workers the supervisor makes a `SharedFolder` before it starts them: from then on
values live in files that every process can add up, and no longer in memory.

A label's child is looked up once and kept: prometheus_client's own look-up takes a lock and
converts every label anew. A metric asked for twice is the same metric.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache

import prometheus_client
from prometheus_client import multiprocess, values
from prometheus_client.registry import Collector

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Counter:
    """A counter with labels; `add` is cheap enough for every request."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self.family = prometheus_client.Counter(name, documentation, labels)
        self._children: dict[tuple[str, ...], prometheus_client.Counter] = {}

    def add(self, amount: float, *labels: str) -> None:
        """Add `amount`; labels in the order in which they were declared."""
        child = self._children.get(labels)
        if child is None:
            child = self.family.labels(*labels) if labels else self.family
            self._children[labels] = child
        child.inc(amount)


class Gauge:
    """A gauge with labels.

    With several workers it shows the sum over those that live, with `largest` the largest value
    that any of them has.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        largest: bool = False,
    ) -> None:
        self.family = prometheus_client.Gauge(
            name, documentation, labels, multiprocess_mode="livemax" if largest else "livesum"
        )
        self._children: dict[tuple[str, ...], prometheus_client.Gauge] = {}

    def set(self, value: float, *labels: str) -> None:
        """Set the value; labels in the order in which they were declared."""
        child = self._children.get(labels)
        if child is None:
            child = self.family.labels(*labels) if labels else self.family
            self._children[labels] = child
        child.set(value)


_made: list[Counter | Gauge] = []


@cache
def counter(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
    """Return the counter of that name, made at the first call."""
    made = Counter(name, documentation, labels)
    _made.append(made)
    return made


@cache
def gauge(
    name: str, documentation: str, labels: tuple[str, ...] = (), *, largest: bool = False
) -> Gauge:
    """Return the gauge of that name, made at the first call."""
    made = Gauge(name, documentation, labels, largest=largest)
    _made.append(made)
    return made


class RequestMetrics:
    """What the HTTP host itself knows about a service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._seen: dict[tuple[str, int], int] = {}
        self._requests = counter(
            "backupgw_http_requests_total",
            "Requests that ended, refused and abandoned ones (499) included.",
            ("service", "method", "status"),
        )
        self._in_progress = gauge(
            "backupgw_http_requests_in_progress", "Requests being answered.", ("service",)
        )
        self._connections = gauge(
            "backupgw_http_connections", "Open client connections.", ("service",)
        )

    def publish(
        self, requests: dict[tuple[str, int], int], in_progress: int, connections: int
    ) -> None:
        """Take over the totals since the process began, by method and status."""
        for (method, status), total in requests.items():
            added = total - self._seen.get((method, status), 0)
            if added:
                self._seen[method, status] = total
                self._requests.add(added, self._service, method, str(status))
        self._in_progress.set(in_progress, self._service)
        self._connections.set(connections, self._service)


_shared: list[Collector] = []


def share(collector: Collector) -> None:
    """Show what a collector finds, whichever worker is asked: all of them would say the same."""
    _shared.append(collector)


def unshare(collector: Collector) -> None:
    """Show it no longer."""
    _shared.remove(collector)


def exposition() -> bytes:
    """Return the metrics in Prometheus' text format: of all workers where there are several."""
    shared = prometheus_client.CollectorRegistry(support_collectors_without_names=True)
    for collector in _shared:
        shared.register(collector)
    return _of_workers() + prometheus_client.generate_latest(shared)


def _of_workers() -> bytes:
    if FOLDER_VARIABLE not in os.environ:
        return prometheus_client.generate_latest()
    registry = prometheus_client.CollectorRegistry(support_collectors_without_names=True)
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


class SharedFolder:
    """The folder in which workers keep their values; the supervisor makes and removes it.

    What this process has counted so far is forgotten.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="backupgw-metrics-")
        self._before = os.environ.get(FOLDER_VARIABLE)
        os.environ[FOLDER_VARIABLE] = self.path
        # prometheus_client has decided when it was imported.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        while _made:
            prometheus_client.REGISTRY.unregister(_made.pop().family)
        counter.cache_clear()
        gauge.cache_clear()

    def worker_ended(self, pid: int) -> None:
        """Forget the gauges of a worker; its counters stay part of the sums."""
        multiprocess.mark_process_dead(pid, self.path)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Remove the folder."""
        os.environ.pop(FOLDER_VARIABLE)
        if self._before is not None:
            os.environ[FOLDER_VARIABLE] = self._before
        shutil.rmtree(self.path, ignore_errors=True)
