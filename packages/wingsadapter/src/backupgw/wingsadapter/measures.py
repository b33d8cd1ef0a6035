"""Metrics of backups and restores."""

from __future__ import annotations

import time

from .adapter import BackupOutcome
from .records import Operation


def ended(
    operation: Operation,
    outcome: BackupOutcome | None,
    seconds: float | None,
    *,
    successful: bool,
) -> None:
    """Count an operation that has ended."""
    from backupgw.runtime.metrics import counter, gauge

    result = "successful" if successful else "failed"
    labels = (operation.kind.value, operation.adapter)
    counter(
        "backupgw_wings_operations_total",
        "Backups and restores that have ended.",
        ("kind", "adapter", "result"),
    ).add(1, *labels, result)
    if seconds is not None:
        counter(
            "backupgw_wings_seconds_total",
            "Time that backups and restores took which succeeded.",
            ("kind", "adapter"),
        ).add(seconds, *labels)
    if outcome is not None:
        counter("backupgw_wings_bytes_total", "Bytes of the files in backups.", ("adapter",)).add(
            outcome.size, operation.adapter
        )
        added = outcome.size if outcome.added is None else outcome.added
        counter(
            "backupgw_wings_added_bytes_total",
            "Bytes that the store grew by.",
            ("adapter",),
        ).add(added, operation.adapter)
        gauge(
            "backupgw_wings_last_success_seconds",
            "When a server's last backup was made, in seconds since 1970.",
            ("server",),
        ).set(time.time(), operation.server)
        if seconds is not None:
            gauge(
                "backupgw_wings_last_duration_seconds",
                "How long a server's last backup took.",
                ("server",),
            ).set(seconds, operation.server)
