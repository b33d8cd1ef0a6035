"""The thread of a process that keeps its session alive, and hears when a claim was let go."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from typing import Protocol

import psycopg

from backupgw.kvstore.ledger import LedgerError

from ..database import Database
from .claims import Claims
from .link import CHANNEL, CLOCK, Link

logger = logging.getLogger(__name__)

_BEATS = 6
"""Heartbeats to a lease."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to reach a database that is away; doubled each time."""

_RENEW = f"UPDATE ledger_sessions SET deadline = {CLOCK} + lease WHERE id = %s AND NOT dead"  # noqa: S608


class Kept(Protocol):
    """The session that is kept alive."""

    lease: float

    @property
    def id(self) -> int:
        """Its number; 0 when there is none."""

    @property
    def locks(self) -> Claims:
        """Whom to tell."""

    def catch_up(self) -> None:
        """Called when the database is back."""


class Keeper:
    """Runs from `start` to `stop`, whatever becomes of the connection in between."""

    def __init__(self, database: Database, session: Kept) -> None:
        self._session = session
        self._link = Link(database, ["SET synchronous_commit = off", f"LISTEN {CHANNEL}"])
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def start(self) -> None:
        """Begin. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="ledger-keeper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stopping = True
        os.write(self._ends[1], b"x")
        if self._thread is not None:
            self._thread.join()
        self._link.drop()
        for end in self._ends:
            os.close(end)

    def leave_to_parent(self) -> None:
        """In a child after a fork, where the thread does not run."""
        self._link.leave_to_parent()
        for end in self._ends:
            os.close(end)

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                with self._link.translated():
                    self._listen()
            except LedgerError as error:
                logger.warning("%s; trying again", error)
                self._link.drop()
                self._tell()  # they find out by themselves
                select.select([self._ends[0]], [], [], pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE

    def _listen(self) -> None:
        """Beat and listen until the connection breaks or the keeper stops."""
        connection = self._link.get()
        self._tell()
        self._session.catch_up()
        beat = 0.0
        while not self._stopping:
            now = time.monotonic()
            if now >= beat:
                connection.execute(_RENEW, (self._session.id,))
                self._tell()  # the answer may have brought what select then waits for in vain
                beat = now + self._session.lease / _BEATS
            left = max(0.0, beat - time.monotonic())
            ready, _, _ = select.select([connection.fileno(), self._ends[0]], [], [], left)
            if connection.fileno() in ready and list(connection.notifies(timeout=0)):
                self._tell()
            if connection.closed:
                raise psycopg.OperationalError("the connection was lost")

    def _tell(self) -> None:
        with contextlib.suppress(LedgerError):  # it is being closed
            self._session.locks.tell()
