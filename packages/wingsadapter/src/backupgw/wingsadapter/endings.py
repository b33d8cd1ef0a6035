"""How an operation has ended: written down once, and told to everybody who waits for it."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from backupgw.runtime.events import BackupFinished, Events

from . import measures
from .adapter import BackupOutcome
from .event_hub import BACKUP_COMPLETED, RESTORE_COMPLETED, EventHub
from .records import Kind, Operation, Records
from .reports import Reporter

log = logging.getLogger(__name__)


class Endings:
    """Notes ends, and tells the Panel, the stream of events, metrics and the gateway's events."""

    def __init__(self, records: Records, reporter: Reporter, hub: EventHub, events: Events) -> None:
        self._records = records
        self._reporter = reporter
        self._hub = hub
        self._events = events

    def end(
        self,
        operation: Operation,
        *,
        successful: bool,
        outcome: BackupOutcome | None = None,
        error: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Note how an operation has ended, and tell everybody; the first word counts."""
        document = {} if outcome is None else _outcome_document(outcome)
        ended = self._records.finish(
            operation.number,
            successful=successful,
            outcome=document,
            error=error,
            report=self._reporter.tells,
        )
        if ended is None:
            return
        level = logging.INFO if successful else logging.ERROR
        log.log(
            level,
            "%s %s of %s %s%s",
            operation.kind,
            operation.backup,
            operation.server,
            "is complete" if successful else "has failed",
            f": {error}" if error else "",
        )
        self._reporter.ring()
        if operation.kind is Kind.BACKUP:
            restic = operation.adapter == "restic"
            self._hub.publish(
                BACKUP_COMPLETED,
                operation.server,
                {
                    "backup_uuid": operation.backup,
                    "is_successful": successful,
                    # restic has no checksum of an archive, and its size is not the Panel's affair.
                    "checksum": "" if restic else document.get("checksum", ""),
                    "checksum_type": "sha1",
                    "file_size": 0 if restic else document.get("size", 0),
                },
            )
            self._events.publish(
                BackupFinished(
                    subject=operation.server,
                    backup=operation.backup,
                    successful=successful,
                    size=None if outcome is None else outcome.size,
                    seconds=None if seconds is None else round(seconds, 3),
                    reason=error,
                )
            )
        else:
            self._hub.publish(
                RESTORE_COMPLETED, operation.server, {"backup_uuid": operation.backup}
            )
        measures.ended(operation, outcome, seconds, successful=successful)


def _outcome_document(outcome: BackupOutcome) -> dict[str, Any]:
    parts = outcome.parts
    return {
        "checksum": outcome.checksum,
        "checksum_type": outcome.checksum_type,
        "size": outcome.size,
        "parts": None if parts is None else [dataclasses.asdict(part) for part in parts],
    }
