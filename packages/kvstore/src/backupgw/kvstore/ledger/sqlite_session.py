"""A process's session with the SQLite file of a ledger: connection, transactions, forks, death."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..backends.errors import BackendError
from . import forks
from .accounts import Levels
from .errors import LedgerError
from .held import NO_NEEDS, HeldBooks, Needs
from .locks import ByteLocks
from .logged_books import BeyondLog
from .records import Alarm, NewItem
from .sqlite_books import SQLiteBooks
from .sqlite_file import boot_id, prepare, translate
from .sqlite_state import SQLiteState
from .tenure import Tenure
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
        self._turns = Turns(self._transact, self._emit, self._tick)
        self._locks: ByteLocks | None = None
        self._tenure: Tenure | None = None
        self._state = SQLiteState(path)
        self._boot = boot_id()
        self._session = 0
        self._numbers = itertools.count(1)
        self._settled: deque[int] = deque()
        self._draining: Step[None] | None = None
        self._drains = threading.Lock()
        """Held while there is such a step, so that there is one."""

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
            self._open_locks()
        except OSError as error:
            raise translate(error, self.path) from error
        self._turns = Turns(self._transact, self._emit, self._tick)
        forks.follow(self)
        try:
            self.run(lambda books: books.reclaim())
        except BaseException:
            self._let_go()
            raise

    def _open_locks(self) -> None:
        self._locks = locks = ByteLocks(f"{self.path}-locks")
        self._tenure = Tenure(locks, time.monotonic, lambda: self._turns.wake())
        locks.before_locking = self._end_tenure

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
            forks.leave(self)
            locks, self._locks = self._locks, None
            tenure, self._tenure = self._tenure, None
            self._session = 0
            if locks is not None:
                try:
                    if tenure is not None:
                        tenure.close()
                    with locks.writing():
                        self._state.disconnect()
                finally:
                    locks.close()

    def before_fork(self) -> None:
        """Keep everybody out and close the connection until the fork is over."""
        self._turns.turn.acquire()
        try:
            if self._locks is not None:
                if self._tenure is not None:
                    self._tenure.end()
                with self._locks.writing():
                    self._state.disconnect()
        except BaseException:
            self._turns.turn.release()
            raise

    def after_fork_in_parent(self) -> None:
        self._turns.turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: locks, turn and session are the parent's."""
        self._turns = Turns(self._transact, self._emit, self._tick)
        self._alarms.clear()
        self._settled.clear()
        self._draining = None
        self._drains = threading.Lock()
        self._session = 0
        self._state.leave_to_parent()
        if self._locks is not None:
            self._locks.leave_to_parent()
            self._open_locks()

    # -- transactions

    def run(self, work: Callable[[HeldBooks], T], needs: Needs = NO_NEEDS) -> T:
        """Do the work in a transaction and return what it returned.

        Raises:
            LedgerError: the transaction failed; nothing happened.
            BackendError: the work raised it.
        """
        return self._turns.run(Step(work, needs=needs))

    def post(
        self,
        work: Callable[[HeldBooks], object],
        needs: Needs = NO_NEEDS,
        *,
        linger: bool = False,
    ) -> None:
        """Have the work done now, or soon if it may `linger`; it is remembered while transactions
        fail."""
        self._turns.post(Step(work, keep=True, needs=needs), linger=linger)

    # -- new items

    def begin_new(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        lease: float,
    ) -> NewItem | None:
        """As `Ledger.begin_new`."""
        locks, tenure = self._locks, self._tenure
        if locks is None or tenure is None:
            return None
        held = tenure.hold(place, name)
        if held is None:
            return None
        number = 0
        try:
            if missing(name):
                number = self._intend_new(locks, tenure, place, scopes, (name, size, lease))
        finally:
            if not number:
                tenure.let_go(held)
        return NewItem(number, tenure, held) if number else None

    def _intend_new(
        self,
        locks: ByteLocks,
        tenure: Tenure,
        place: str,
        scopes: tuple[str, ...],
        what: tuple[str, int, float],
    ) -> int:
        turns = self._turns
        if not turns.take_at_once(self._draining, wait=tenure.taken):
            return 0
        try:
            if not self._session:
                return 0
            name, size, lease = what
            number = self._session << 32 | next(self._numbers)
            settled = list(self._settled)
            intent = number, int(self._clock() + lease) + 1, name, size
            if tenure.goes_on():
                done = self._state.intend_new(place, scopes, intent, settled, alone=True)
            else:
                locks.begin_writing()
                try:
                    done = self._state.intend_new(place, scopes, intent, settled, alone=False)
                    if done:
                        tenure.begin()
                finally:
                    locks.end_writing()
            if not done:
                return 0
            for _ in settled:
                self._settled.popleft()
            return number
        except BaseException as error:
            self._state.forget()
            if isinstance(error, OSError | sqlite3.Error):
                raise translate(error, self.path) from error
            raise
        finally:
            turns.give_back()

    def _end_tenure(self) -> None:
        """Let others have what this process holds beyond its need; a thread of it is one."""
        tenure = self._tenure
        if tenure is not None and tenure.taken:
            with self._turns.turn:
                tenure.end()

    def _tick(self) -> bool:
        tenure = self._tenure
        return tenure is not None and tenure.tick()

    def end_new(self, item: NewItem, *, settled: bool) -> None:
        """As `Ledger.end_new`."""
        number, tenure, held = item
        if settled:
            self.settle_new(number)
        tenure.let_go(held)

    def settle_new(self, number: int) -> None:
        """Let the intent of a new item end as intended, by the next intent or in a while."""
        self._settled.append(number)
        if self._draining is None and self._drains.acquire(blocking=False):
            self._draining = step = self._drain()
            self._turns.post(step, linger=True)

    def _drain(self) -> Step[None]:
        """Return a step that records what has ended, unless an intent takes it along."""
        numbers: list[int] = []  # of this step: it may have to be repeated

        def drain(books: HeldBooks) -> None:
            if self._draining is step:
                self._draining = None
                self._drains.release()
            while self._settled:
                numbers.append(self._settled.popleft())
            for number in numbers:
                books.end_as_intended(number)

        step = Step(drain, keep=True)
        return step

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
            locks.begin_writing()
            try:
                self._alarms.extend(self._write(locks, steps))
            finally:
                locks.end_writing()
        except (OSError, sqlite3.Error) as error:
            raise translate(error, self.path) from error

    def _write(self, locks: ByteLocks, steps: Sequence[Step[Any]]) -> list[Alarm]:
        state, now = self._state, self._clock()
        try:
            if not self._session:
                self._begin_session(locks)
            logged = state.logged_books(session=self._session, now=now, is_dead=locks.is_dead)
            if logged is not None:
                try:
                    alarms = self._do(logged, steps)
                    state.commit(logged)
                except BeyondLog:
                    state.forget()
                else:
                    return alarms
            with state.transaction() as db:
                books = SQLiteBooks(
                    db, session=self._session, now=now, is_dead=locks.is_dead, boot=self._boot
                )
                return self._do(books, steps)
        except BaseException:
            state.forget()
            raise

    def _do(self, books: HeldBooks, steps: Sequence[Step[Any]]) -> list[Alarm]:
        for step in steps:
            step.error = None
            try:
                step.result = step.work(books)
            except BackendError as error:
                step.error = error
        alarms = books.due(self._levels)
        books.write_back()
        return alarms

    def _begin_session(self, locks: ByteLocks) -> None:
        """Put on record, durably, that this process has the ledger open."""
        with self._state.transaction(durable=True) as db:
            session = db.execute("INSERT INTO sessions (boot) VALUES (?)", (self._boot,)).lastrowid
            assert session is not None
            locks.begin_session(session)
        self._session = session
