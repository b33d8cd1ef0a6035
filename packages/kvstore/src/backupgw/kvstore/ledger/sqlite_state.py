"""Where a ledger in SQLite has its state: the file, the log beside it, and what is in memory.

Two kinds of transaction change it. One that the log can hold is done in memory and appended as a
record. Any other is one of SQLite: it first gives the file what the log has, and afterwards the
log begins anew. So does the log when it is full.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import LedgerError
from .logged_books import LoggedBooks
from .sqlite_file import check_version, connect
from .sqlite_log import NO_TAG, START, Log
from .sqlite_memory import Memory

logger = logging.getLogger(__name__)

MOST_UNCOUNTED = 1000
"""Folders that a count has still to see, up to which all processes know them; beyond it, nothing is
logged."""

_inherited: list[sqlite3.Connection] = []
"""Connections of the process that this one was forked from; never used, and never closed, since
SQLite must not be told of them here."""


class SQLiteState:
    """The state as one process sees it; all within the writers' lock, by one thread at a time.

    All methods raise LedgerError, OSError and sqlite3.Error.

    Args:
        path: of the SQLite file; the log lies beside it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self.log: Log | None = None
        """None where it is not open."""
        self.memory: Memory | None = None
        """What is known of them; None where they have to be read."""

    def disconnect(self) -> None:
        """Let go of the files, and of what was known of them."""
        self.memory = None
        if self._db is not None:
            db, self._db = self._db, None
            db.close()
        if self.log is not None:
            log, self.log = self.log, None
            log.close()

    def leave_to_parent(self) -> None:
        """In a child after a fork: let go of what the parent could not let go of before it."""
        self.memory = None
        if self._db is not None:
            _inherited.append(self._db)
            self._db = None
        if self.log is not None:
            log, self.log = self.log, None
            log.close()

    def forget(self) -> None:
        """Trust nothing but the files."""
        self.memory = None

    def connection(self) -> sqlite3.Connection:
        """Return the connection to the file, with no transaction begun."""
        if self._db is None:
            self._db = connect(self._path)
        return self._db

    def _open_log(self) -> Log:
        if self.log is None:
            self.log = Log(f"{self._path}-log")
        return self.log

    # -- transactions in the log

    def logged_books(
        self, *, session: int, now: float, is_dead: Callable[[int], bool]
    ) -> LoggedBooks | None:
        """Begin a transaction in memory; None where it has to be one of SQLite."""
        log, memory = self._open_log(), self.memory
        if memory is None or not log.has(memory.tag):
            self.memory = None
            memory = self._load()
        if memory.counting:
            return None
        self._catch_up(log, memory)
        memory.spread()
        self.memory = memory
        return LoggedBooks(memory, session=session, now=now, is_dead=is_dead)

    def caught_up(self) -> Memory | None:
        """Return what is known, with what others wrote; None where it has to be loaded anew."""
        memory, log = self.memory, self.log
        if memory is None or log is None:
            return None
        if not log.has(memory.tag):
            self.memory = None
            return None
        if log.goes_on(memory.tag, memory.end):
            self._catch_up(log, memory)
        return memory

    def append(self, memory: Memory, record: bytes) -> None:
        """Put on record what was done in memory."""
        end = self._open_log().append(memory.tag, memory.end, record)
        if end is None:
            self.begin_anew(memory)
        else:
            memory.end = end

    def commit(self, books: LoggedBooks) -> None:
        """Put what was done in memory on record."""
        memory = self.memory
        assert memory is not None
        if books.record:
            self.append(memory, books.record)

    def begin_anew(self, memory: Memory) -> None:
        """Have the file take over what the log has no room for, with all the rest."""
        with self.transaction():
            pass
        self.memory = memory

    def _load(self) -> Memory:
        db = self.connection()
        check_version(db, self._path)
        (tag,) = db.execute("SELECT tag FROM log").fetchone()
        self._agree(db, tag)
        uncounted = db.execute(
            "SELECT place, folder, lister FROM uncounted LIMIT ?", (MOST_UNCOUNTED + 1,)
        ).fetchall()
        memory = Memory(tag, START, self.connection, counting=len(uncounted) > MOST_UNCOUNTED)
        if not memory.counting:
            memory.load(db, uncounted)
        return memory

    def _agree(self, db: sqlite3.Connection, tag: bytes) -> None:
        """Have the log hold the records that belong to the file, if it does not yet."""
        log = self._open_log()
        current, following = log.tags()
        if (current, following) == (tag, NO_TAG):
            return
        if tag not in (current, following):
            lost = db.execute("UPDATE places SET stale = 1 WHERE stale = 0").rowcount
            if lost:
                logger.warning(
                    "the log of the ledger %s was lost: it has to count anew", self._path
                )
        log.begin(tag)

    def _catch_up(self, log: Log, memory: Memory) -> None:
        for record, end in log.read(memory.tag, memory.end):
            try:
                memory.replay(record)
            except (ValueError, TypeError, struct.error) as error:
                check_version(self.connection(), self._path)
                raise LedgerError(
                    f"the log of the ledger {self._path} has a record that cannot be read ({error})"
                ) from error
            memory.end = end

    # -- transactions of SQLite

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield the connection with a transaction begun, in which the file has what the log had.

        Args:
            durable: wait until the disk has it.
        """
        db, log = self.connection(), self._open_log()
        memory, self.memory = self.memory, None
        if memory is None or not log.has(memory.tag):
            memory = self._load()
        if not memory.counting:
            self._catch_up(log, memory)
        memory.spread()
        tag = os.urandom(len(NO_TAG))
        if durable:
            db.execute("PRAGMA synchronous = FULL")
        try:
            db.execute("BEGIN IMMEDIATE")
            check_version(db, self._path)
            memory.write(db)
            db.execute("UPDATE log SET tag = ?", (tag,))
            yield db
            log.announce(memory.tag, tag)
            db.execute("COMMIT")
        except BaseException:
            self._roll_back(db)  # the level cannot be set within a transaction
            raise
        finally:
            if durable and self._db is not None:
                db.execute("PRAGMA synchronous = NORMAL")
        memory.written(tag, START)
        try:
            log.begin(tag)
        except OSError as error:
            # It happened; whoever comes next sees from the file what the log is to say.
            logger.warning("the log of the ledger %s: %s", self._path, error)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.warning("the ledger %s is opened anew: %s", self._path, error)
            self._db = None
            db.close()
