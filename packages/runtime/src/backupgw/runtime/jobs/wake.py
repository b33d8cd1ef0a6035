"""Who hears of changes, and how: nobody here asks the database again and again.

Within a process a change is told directly. PostgreSQL tells the other gateways (LISTEN and NOTIFY).
SQLite tells nobody: the other processes look every `poll` seconds, which costs a few reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..database import Database, DatabaseError
from .rows import CHANNEL

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

Listener = Callable[[str, int | None], None]
"""Told what changed ("submitted", "queued", "started", "progress", "cancel", "finished", or
"anything") of which job; None: perhaps of any. Called from any thread, and returns at once."""

_LONGEST_WAIT = 10.0
"""Seconds between two tries to reach a PostgreSQL that is away."""


class Bell:
    """Passes changes on to who wants to know of them."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        """Tell `listener` from now on."""
        self._listeners = (*self._listeners, listener)

    def ring(self, change: str, number: int | None) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener(change, number)


class PostgresListener:
    """A thread that rings the bell for what other gateways do."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell
        self._closed = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="jobs-listen", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and its connection."""
        self._closed = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        import psycopg

        wait = 0.5
        while not self._closed:
            try:
                with contextlib.closing(self._database.own_connection()) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    # What happened while nobody listened was not told.
                    self._bell.ring("anything", None)
                    wait = 0.5
                    self._listen(connection)
            except (psycopg.Error, DatabaseError, OSError) as error:
                logger.info("not told of other gateways' jobs: %s", self._database.failure(error))
                select.select([self._wake_read], [], [], wait)
                wait = min(wait * 2, _LONGEST_WAIT)

    def _listen(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        while not self._closed:
            select.select([connection.fileno(), self._wake_read], [], [])
            # Everything there is, without waiting for more. Raises once the connection is lost.
            for notice in connection.notifies(timeout=0):
                change, _, number = notice.payload.partition(" ")
                self._bell.ring(change, int(number) if number.isdigit() else None)
