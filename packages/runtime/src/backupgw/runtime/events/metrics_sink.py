"""Events as metrics: what an alert is built on, without labels that grow with the users."""

from __future__ import annotations

from collections.abc import Sequence

from .records import BackupFinished, DamageFound, Message


class MetricsSink:
    """Counts by severity, and what a person is to be woken for by place.

    `backupgw_events_total` counts by type already, in the dispatcher.
    """

    name = "metrics"

    def __init__(self) -> None:
        # Imported late: whoever serves nothing needs no prometheus_client.
        from backupgw.runtime import metrics

        self._severities = metrics.counter(
            "backupgw_events_by_severity_total", "Events by how much they matter.", ("severity",)
        )
        self._damage = metrics.counter(
            "backupgw_damage_found_total", "Damaged items found.", ("place", "repaired")
        )
        self._backups = metrics.counter(
            "backupgw_backups_finished_total", "Backups that ended.", ("successful",)
        )

    def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            event = message.event
            self._severities.add(1, event.weight.value)
            if isinstance(event, DamageFound):
                self._damage.add(1, event.place, str(event.repaired).lower())
            elif isinstance(event, BackupFinished):
                self._backups.add(1, str(event.successful).lower())

    def close(self, timeout: float) -> None:
        """Nothing runs here."""
