"""Events as log records: one each, at the level of its severity, its fields beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .records import Message, Severity

logger = logging.getLogger("backupgw.events")

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}
# Attributes that logging keeps for itself, an extra field of that name raises KeyError; and what
# every record of ours has: a quota's level must not take the place of the record's.
_TAKEN = frozenset(logging.makeLogRecord({}).__dict__) | {
    *("message", "asctime"),
    *("level", "event", "logger", "timestamp", "exception"),
}


class LogSink:
    """Writes events to the logger `backupgw.events`."""

    name = "log"

    def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            level = _LEVELS[message.event.weight]
            if not logger.isEnabledFor(level):
                continue
            fields = {
                f"event_{name}" if name in _TAKEN else name: value
                for name, value in message.event.data().items()
                if value is not None
            }
            logger.log(level, message.event.type, extra={"event_id": message.id, **fields})

    def close(self, timeout: float) -> None:
        """Nothing runs here."""
