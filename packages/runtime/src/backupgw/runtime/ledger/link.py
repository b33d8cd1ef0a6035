"""A connection of the ledger to PostgreSQL: made when it is needed, and anew when it broke."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from backupgw.kvstore.ledger import LedgerError, LedgerFull

from ..database import Database, DatabaseError

logger = logging.getLogger(__name__)

T = TypeVar("T")

Row = tuple[Any, ...]

CLOCK = "extract(epoch FROM clock_timestamp())::double precision"
"""The time of the database, in seconds since 1970: the only clock that gateways share."""

CHANNEL = "backupgw_ledger"
"""Where those who wait for a claim are told that one was let go."""

WRITING = 0x6261636B7570_0003
CLAIMING = 0x6261636B7570_0004
"""Advisory locks, held within a transaction: of the one that changes accounts, and of the one that
changes claims. Who takes both takes WRITING first."""

LOCK_TIMEOUT = 5
"""Seconds to wait for the others' transactions, which take milliseconds, before asking why."""

STALLED = 3
"""Seconds after which a gateway that says nothing in the middle of a transaction is thrown out.
PostgreSQL's own time-out does not count what lies between the statements of a pipeline."""

ATTEMPTS = 3

# Who has one of the locks and has been waited for; its connection is ended, and its transaction
# with it. Either: what waits for CLAIMING may be a transaction that has WRITING, and all behind it.
_THROW_OUT = f"""
    SELECT pg_terminate_backend(pid)
    FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_database ON oid = database
    WHERE pg_database.datname = current_database() AND locktype = 'advisory' AND granted
        AND (classid::bigint << 32 | objid::bigint) = ANY(%s) AND objsubid = 1
        AND wait_event = 'ClientRead'
        AND greatest(query_start, state_change) < clock_timestamp() - interval '{STALLED} s'
"""  # noqa: S608

_inherited: list[object] = []
"""Connections of the process that this one was forked from; never closed, since that would speak
to the server in the parent's name."""


def key_of(*parts: str) -> bytes:
    """Return the digest by which rows are found; parts hold no NUL."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


class Link:
    """One connection, for one thread at a time.

    Args:
        settings: SQL run on each new connection.
    """

    def __init__(self, database: Database, settings: Sequence[str] = ()) -> None:
        self.database = database
        self._settings = (
            f"SET lock_timeout = '{LOCK_TIMEOUT}s'",
            f"SET idle_in_transaction_session_timeout = '{STALLED}s'",
            *settings,
        )
        self._connection: Connection[Row] | None = None

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as anybody knows."""
        return self._connection is not None and not self._connection.closed

    def get(self) -> Connection[Row]:
        """Return the connection. Raises DatabaseError or psycopg.Error when it cannot be had."""
        if self._connection is None or self._connection.closed:
            self.drop()
            connection = self.database.own_connection()
            try:
                with connection.pipeline():
                    for statement in self._settings:
                        connection.execute(statement)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """Close it; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def leave_to_parent(self) -> None:
        """In a child after a fork: let go of the parent's connection without a word."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _inherited.append(connection)
            with contextlib.suppress(OSError, psycopg.Error):
                os.close(connection.pgconn.socket)

    def attempts(self, work: Callable[[], T]) -> T:
        """Do a transaction, again if its connection had broken since it was last used, or if
        another gateway stalled in the middle of one. The work can tell whether it was done."""
        for left in reversed(range(ATTEMPTS)):
            try:
                return work()
            except psycopg.errors.LockNotAvailable:
                if not left:
                    raise
                self._throw_out()
            except psycopg.Error:
                if self.open or not left:
                    raise
        raise AssertionError("unreachable")

    def _throw_out(self) -> None:
        """End the connections of who has a lock and does nothing with it."""
        thrown = self.get().execute(_THROW_OUT, ([WRITING, CLAIMING],)).fetchall()
        if thrown:
            logger.warning("a gateway stalled in the middle of a transaction and was thrown out")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what goes wrong into LedgerError."""
        try:
            yield
        except DatabaseError as error:
            raise LedgerError(f"the ledger: {error}", retryable=error.retryable) from error
        except psycopg.errors.DiskFull as error:
            raise LedgerFull(f"the ledger: {self.database.failure(error)}") from None
        except psycopg.Error as error:
            retryable = not self.open
            failure = self.database.failure(error)
            # The driver's own error may hold the password, `failure` does not.
            raise LedgerError(
                f"the ledger: {failure}", retryable=retryable or failure.retryable
            ) from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection[Row]]:
        """Roll back what an exception leaves open; the block begins and commits by itself."""
        connection = self.get()
        try:
            yield connection
        except BaseException:
            try:
                if not connection.closed:
                    connection.rollback()
            except psycopg.Error:
                connection.close()
            raise
