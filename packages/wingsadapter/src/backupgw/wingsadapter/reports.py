"""The Panel told of every end of a backup and of a restore, until it has taken it.

Reports lie in the node's records: they survive a crash, and a Panel that is away for long. A 404
soon after the backup was asked for only means that the Panel has not committed yet what it calls
us from; later it means that nobody wants to know any more.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from backupgw.runtime.rounds import Rounds

from .panel import Panel, PanelError
from .records import Kind, Operation, Records

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds after a request in which a 404 is not believed."""
GIVEN_UP_AFTER = 7 * 86_400.0
"""Seconds: a Panel fails what is unfinished after 6 hours by itself."""
_FIRST, _LONGEST = 1.0, 300.0


class Reporter:
    """Sends the reports that are due, on a thread of its own.

    Args:
        panel: None: nobody is told.
        pace: multiplies all waits; tests are in a hurry.
    """

    def __init__(self, records: Records, panel: Panel | None, *, pace: float = 1.0) -> None:
        self._records = records
        self._panel = panel
        self._pace = pace
        self._rounds = Rounds(
            self._round, name="wings-reports", failing="reports to the Panel are held up"
        )

    @property
    def tells(self) -> bool:
        """Whether there is a Panel to be told."""
        return self._panel is not None

    def start(self) -> None:
        """Begin with what is due."""
        if self._panel is not None:
            self._rounds.start()

    def ring(self) -> None:
        """There is something new to be told."""
        self._rounds.ring()

    def close(self) -> None:
        """End the thread; what was not told is told after the next start."""
        self._rounds.close()

    def _round(self) -> float | None:
        """Send what is due; return the seconds until there is more (None: nothing waits)."""
        due, following = self._records.due(time.time())
        for operation in due:
            if self._rounds.closed:
                return 0.0
            self._send(operation)
        if due:
            return 0.0
        return None if following is None else max(0.0, following - time.time())

    def _send(self, operation: Operation) -> None:
        assert self._panel is not None
        what = f"{operation.kind} {operation.backup} of {operation.server}"
        try:
            if operation.kind is Kind.BACKUP:
                self._panel.backup_ended(operation.backup, backup_document(operation))
            else:
                self._panel.restore_ended(operation.backup, successful=bool(operation.successful))
        except PanelError as error:
            age = time.time() - operation.created
            early = error.status == 404 and age < PATIENCE * self._pace
            old = time.time() - (operation.finished or 0.0) > GIVEN_UP_AFTER
            if (error.passing or early) and not old:
                wait = min(_LONGEST, _FIRST * 2 ** min(operation.tries, 16)) * self._pace
                if early:
                    wait = min(wait, 5.0 * self._pace)
                log.warning("%s: %s; it is told again in %.0f s", what, error, wait)
                wait *= random.uniform(0.8, 1.2)  # noqa: S311 - only spreads the attempts
                self._records.report_later(operation.number, time.time() + wait)
                return
            if error.status == 400 and operation.tries:
                log.info("%s: the Panel knows already: its answer was lost", what)
            else:
                log.error("%s: %s; it is not told again", what, error)  # noqa: TRY400 - it is an answer
        self._records.reported(operation.number)


def backup_document(operation: Operation) -> dict[str, Any]:
    """Return what the Panel is told of a backup that has ended.

    On success it refuses an empty checksum.
    """
    outcome = operation.outcome
    return {
        "checksum": outcome.get("checksum", ""),
        "checksum_type": outcome.get("checksum_type", "sha1"),
        "size": outcome.get("size", 0),
        "successful": bool(operation.successful),
        "parts": outcome.get("parts"),
    }
