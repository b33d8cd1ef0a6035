"""Metrics of what happens behind the clients' backs: the trash and the last verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from backupgw.runtime.settings import Settings

from .settings import RestSettings
from .standing_files import TRASH, VERIFIED, read_standing, standing_path

_GAUGES = {
    VERIFIED: {
        "finished": (
            "backupgw_rest_verify_finished_timestamp_seconds",
            "When the last verification of the whole place ended.",
        ),
        "files": ("backupgw_rest_verify_files", "Files that the last verification looked at."),
        "bytes": ("backupgw_rest_verify_bytes", "Bytes that the last verification read."),
        "damaged": ("backupgw_rest_verify_damaged", "Objects found damaged by it."),
        "misplaced": ("backupgw_rest_verify_misplaced", "Objects found where nobody looks."),
        "unreadable": ("backupgw_rest_verify_unreadable", "Objects that it could not read."),
    },
    TRASH: {
        "counted": ("backupgw_rest_trash_counted_timestamp_seconds", "When the trash was counted."),
        "objects": ("backupgw_rest_trash_objects", "Objects in the trash."),
        "bytes": ("backupgw_rest_trash_bytes", "Bytes in the trash."),
        "expired": ("backupgw_rest_trash_expired_objects", "Those kept longer than they have to."),
    },
}


@dataclass(slots=True)
class _Source:
    path: Path
    gauges: dict[str, Gauge]
    seen: tuple[int, int] = field(default=(0, 0))


class OperatorMetrics:
    """Shows what the files of `standing_files` say, all workers alike.

    Args:
        registry: where the metrics are shown.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._place = settings.section("rest", RestSettings).place
        self._sources = [
            _Source(
                standing_path(settings, subject),
                {
                    name: Gauge(
                        *described,
                        ("place",),
                        registry=registry,
                        # Not a sum over workers: all of them say the same.
                        multiprocess_mode="mostrecent",
                    )
                    for name, described in gauges.items()
                },
            )
            for subject, gauges in _GAUGES.items()
        ]

    def refresh(self) -> None:
        """Look at the files again, where they have changed."""
        for source in self._sources:
            try:
                status = source.path.stat()
            except OSError:
                continue  # nothing is known yet
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == source.seen:
                continue
            source.seen = stamp
            for name, value in read_standing(source.path).items():
                if name in source.gauges:
                    source.gauges[name].labels(self._place).set(value)
