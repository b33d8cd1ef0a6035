"""What Prometheus is told of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import prometheus_client

from .. import metrics
from .records import Job


class JobMetrics:
    """The metrics of the jobs that a process runs."""

    def __init__(self) -> None:
        self._running = metrics.gauge("backupgw_jobs_running", "Jobs that are running.", ("kind",))
        self._counts: dict[str, int] = {}
        self._queued = _queued()
        self._known: set[str] = set()
        self._finished = metrics.counter(
            "backupgw_jobs_finished_total",
            "Jobs that ended: succeeded, failed or cancelled.",
            ("kind", "outcome"),
        )
        self._seconds = metrics.counter(
            "backupgw_jobs_seconds_total", "Seconds that attempts took.", ("kind",)
        )
        self._attempts = metrics.counter(
            "backupgw_jobs_attempts_total",
            "Attempts by how they ended: done, failed, stopped, handed_over, lost (the lease "
            "ended before the attempt), died (found by another gateway, or after a restart).",
            ("kind", "outcome"),
        )

    def began(self, kind: str) -> None:
        """An attempt begins; called by one thread at a time."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._running.set(self._counts[kind], kind)

    def ended(self, kind: str, outcome: str, seconds: float) -> None:
        """An attempt has ended; called by one thread at a time."""
        self._counts[kind] -= 1
        self._running.set(self._counts[kind], kind)
        self._seconds.add(seconds, kind)
        self._attempts.add(1, kind, outcome)

    def died(self, kind: str) -> None:
        """The lease of a dead process's attempt has run out."""
        self._attempts.add(1, kind, "died")

    def finished(self, job: Job) -> None:
        """A job has ended for good."""
        self._finished.add(1, job.kind, job.state.value)

    def queued(self, counts: Mapping[str, int]) -> None:
        """Show how many jobs wait in the database."""
        for kind in self._known - counts.keys():
            self._queued.labels(kind).set(0)
        self._known |= counts.keys()
        for kind, count in counts.items():
            self._queued.labels(kind).set(count)


@cache
def _queued() -> prometheus_client.Gauge:
    # All processes see the same queue: the last to look knows best, a sum would be wrong.
    return prometheus_client.Gauge(
        "backupgw_jobs_queued",
        "Jobs that wait, of all gateways that share the database.",
        ("kind",),
        multiprocess_mode="livemostrecent",
    )
