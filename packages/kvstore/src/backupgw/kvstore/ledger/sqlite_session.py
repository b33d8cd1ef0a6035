"""A process's session with the SQLite file of a ledger: connection, transactions, forks, death."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..backends.errors import BackendError
from .accounts import Levels
from .errors import LedgerError
from .held import NO_NEEDS, Needs
from .locks import ByteLocks
from .records import Alarm
from .sqlite_books import SQLiteBooks
from .sqlite_file import boot_id, connect, prepare, translate
from .turns import Step, Turns

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SQLiteSession:
    """Runs steps in transactions, from any thread.

    Args:
        path: of the SQLite file.
        levels, on_alarm, clock: as `SQLiteLedger` has them.
    """

    def __init__(
        self,
        path: str,
        levels: Levels,
        on_alarm: Callable[[Alarm], None] | None,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self._levels = levels
        self._on_alarm = on_alarm
        self._clock = clock
        self._alarms: deque[Alarm] = deque()
        self._turns = Turns(self._transact, self._emit)
        self._locks: ByteLocks | None = None
        self._db: sqlite3.Connection | None = None
        self._boot = boot_id()
        self._session = 0
        self._numbers = itertools.count()

    @property
    def locks(self) -> ByteLocks:
        """Raises LedgerError when the ledger is not open."""
        if self._locks is None:
            raise LedgerError(f"the ledger {self.path} is not open")
        return self._locks

    def number(self) -> int:
        """Return, within a step, a number that nobody ever had: no session is numbered twice."""
        return self._session << 32 | next(self._numbers)

    def open(self) -> None:
        """Begin; what dead processes have reserved is given back."""
        if self._locks is not None:
            raise LedgerError(f"the ledger {self.path} is open already")
        try:
            prepare(self.path)
            self._locks = ByteLocks(f"{self.path}-locks")
        except OSError as error:
            raise translate(error, self.path) from error
        self._turns = Turns(self._transact, self._emit)
        _open_sessions.add(self)
        try:
            self.run(SQLiteBooks.reclaim)
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Write down what is pending and end the session on record."""
        self.locks  # noqa: B018 - raises unless open
        try:
            self._turns.end()
            if self._session:
                self.run(lambda books: books.bury(books.session))
        except LedgerError as error:
            # The session stays on record and is buried by whoever opens the ledger next.
            logger.warning("closing: %s", error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        with self._turns.turn:
            _open_sessions.discard(self)
            locks, self._locks = self._locks, None
            self._session = 0
            if locks is not None:
                try:
                    with locks.writing():
                        self._disconnect()
                finally:
                    locks.close()

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def before_fork(self) -> None:
        """Keep everybody out and close the connection until the fork is over."""
        self._turns.turn.acquire()
        if self._locks is not None:
            with self._locks.writing():
                self._disconnect()

    def after_fork_in_parent(self) -> None:
        self._turns.turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: locks, turn and session are the parent's."""
        self._turns = Turns(self._transact, self._emit)
        self._alarms.clear()
        self._session = 0
        if self._locks is not None:
            self._locks.leave_to_parent()
            self._locks = ByteLocks(f"{self.path}-locks")

    # -- transactions

    def run(self, work: Callable[[SQLiteBooks], T], needs: Needs = NO_NEEDS) -> T:
        """Do the work in a transaction and return what it returned.

        Raises:
            LedgerError: the transaction failed; nothing happened.
            BackendError: the work raised it.
        """
        return self._turns.run(Step(work, needs=needs))

    def post(
        self,
        work: Callable[[SQLiteBooks], object],
        needs: Needs = NO_NEEDS,
        *,
        linger: bool = False,
    ) -> None:
        """Have the work done now, or soon if it may `linger`; it is remembered while transactions
        fail."""
        self._turns.post(Step(work, keep=True, needs=needs), linger=linger)

    def _emit(self) -> None:
        while self._alarms:
            try:
                alarm = self._alarms.popleft()
            except IndexError:
                return  # another thread was quicker
            if self._on_alarm is not None:
                try:
                    self._on_alarm(alarm)
                except Exception:  # not ours, and the write that raised the alarm is done
                    logger.exception("the callback for %s failed", alarm)

    def _transact(self, steps: Sequence[Step[Any]]) -> None:
        locks = self.locks
        try:
            with locks.writing():
                self._alarms.extend(self._write(locks, steps))
        except (OSError, sqlite3.Error) as error:
            raise translate(error, self.path) from error

    def _write(self, locks: ByteLocks, steps: Sequence[Step[Any]]) -> list[Alarm]:
        if self._db is None:
            self._db = connect(self.path)
        db = self._db
        try:
            if not self._session:
                self._begin_session(db, locks)
            db.execute("BEGIN IMMEDIATE")
            books = SQLiteBooks(
                db,
                session=self._session,
                now=self._clock(),
                is_dead=locks.is_dead,
                boot=self._boot,
            )
            for step in steps:
                try:
                    step.result = step.work(books)
                except BackendError as error:
                    step.error = error
            alarms = books.due(self._levels)
            books.write_back()
            db.execute("COMMIT")
        except BaseException:
            self._roll_back(db)
            raise
        return alarms

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.warning("the ledger %s is opened anew: %s", self.path, error)
            self._disconnect()

    def _begin_session(self, db: sqlite3.Connection, locks: ByteLocks) -> None:
        """Put on record, durably, that this process has the ledger open."""
        db.execute("PRAGMA synchronous = FULL")
        try:
            db.execute("BEGIN IMMEDIATE")
            session = db.execute("INSERT INTO sessions (boot) VALUES (?)", (self._boot,)).lastrowid
            assert session is not None
            locks.begin_session(session)
            db.execute("COMMIT")
        except BaseException:
            self._roll_back(db)  # the level cannot be set within a transaction
            raise
        finally:
            if self._db is not None:
                db.execute("PRAGMA synchronous = NORMAL")
        self._session = session


_open_sessions: weakref.WeakSet[SQLiteSession] = weakref.WeakSet()
_forking: list[SQLiteSession] = []


def _before_fork() -> None:
    _forking.extend(sorted(_open_sessions, key=id))
    for session in _forking:
        session.before_fork()


def _after_fork_in_parent() -> None:
    for session in _forking:
        session.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for session in _forking:
        session.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
