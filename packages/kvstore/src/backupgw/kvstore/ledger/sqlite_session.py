"""A process's session with the SQLite file of a ledger: connection, transactions, forks, death."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .. import spare_room
from ..backends.errors import BackendError
from . import forks
from .accounts import Levels
from .errors import LedgerError, LedgerFull
from .held import NO_NEEDS, HeldBooks, Needs
from .locks import ByteLocks
from .logged_books import BeyondLog
from .records import Alarm, Effect
from .short_way import ShortWay
from .sqlite_books import SQLiteBooks
from .sqlite_file import boot_id, prepare, translate
from .sqlite_state import SQLiteState
from .tenure import Tenure
from .told_late import Then
from .turns import Step, Turns

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _count_anew(books: HeldBooks) -> None:
    books.mark_all_stale()


def _nothing(_: HeldBooks) -> None:
    return None


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
        self._turns = Turns(self._transact, self._emit, self._tick, _count_anew)
        self._locks: ByteLocks | None = None
        self._tenure: Tenure | None = None
        self._state = SQLiteState(path)
        self._boot = boot_id()
        self.session = 0
        self.numbers: Iterator[int] = itertools.count(1)
        self.short_way: ShortWay | None = None
        """None before it is open for the first time, and where it could not follow a fork."""
        self._opening = threading.Lock()
        self._left_behind = False
        """Whether it could not follow a fork: whoever needs the locks tries to open them."""

    @property
    def locks(self) -> ByteLocks:
        """Raises LedgerError when the ledger is not open, or could not follow a fork."""
        return self._locks or self._follow()

    def _follow(self) -> ByteLocks:
        with self._opening:
            if self._locks is None:
                if not self._left_behind:
                    raise LedgerError(f"the ledger {self.path} is not open")
                self._open_locks()
            assert self._locks is not None
            return self._locks

    def number(self) -> int:
        """Return, within a step, a number that nobody ever had: no session is numbered twice."""
        return self.session << 32 | next(self.numbers)

    def open(self) -> None:
        """Begin; what dead processes have reserved is given back."""
        if self._locks is not None:
            raise LedgerError(f"the ledger {self.path} is open already")
        spare_room.give_up_where_full(self.path)
        try:
            self._begin()
        except LedgerFull:
            # A quota, say. Of two that meet it at once, what the first gives up serves both.
            spare_room.give_up(self.path)
            self._begin()
        spare_room.hold(self.path)

    def _begin(self) -> None:
        try:
            prepare(self.path)
            self._turns = Turns(self._transact, self._emit, self._tick, _count_anew)
            self._open_locks()
        except OSError as error:
            raise translate(error, self.path) from error
        forks.follow(self)
        try:
            self.run(lambda books: books.reclaim())
        except BaseException:
            self._let_go()
            raise

    def _open_locks(self) -> None:
        locks = ByteLocks(f"{self.path}-locks")
        try:
            tenure = Tenure(locks, time.monotonic, lambda: self._turns.wake())
        except BaseException:
            locks.close()
            raise
        locks.before_locking = self._end_tenure
        self.short_way = ShortWay(
            self.path, self, locks, tenure, self._turns, self._state, self._clock
        )
        self._locks, self._tenure, self._left_behind = locks, tenure, False

    def close(self) -> None:
        """Write down what is pending and end the session on record."""
        try:
            self.locks  # noqa: B018 - raises unless open
        except LedgerError:
            if not self._left_behind:
                raise
            self._let_go()
            return
        try:
            self._turns.end()
            if self.session:
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
            self.session = 0
            self._left_behind = False
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
        if self._turns.queue:  # by a thread that found the turn taken
            self._turns.wake()

    def after_fork_in_child(self) -> None:
        """Begin anew: locks, turn and session are the parent's."""
        self.short_way = None
        self._turns = Turns(self._transact, self._emit, self._tick, _count_anew)
        self._alarms.clear()
        self.session = 0
        self._state.leave_to_parent()
        self._opening = threading.Lock()
        # Its descriptors are closed here, and soon their numbers are other files'.
        inherited, self._locks, self._tenure = self._locks, None, None
        if inherited is not None:
            self._left_behind = True
            inherited.leave_to_parent()
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

    def told_late(self, place: str, effects: Sequence[Effect]) -> Callable[[HeldBooks], object]:
        """Return the work that tells the books what has happened without an intent, to names that
        this thread holds; it may be done when it holds them no more."""
        with contextlib.suppress(LedgerError):
            self.run(_nothing)  # so that no end of this process's own intents is still to be told
        then = self._look_at(place, [effect.name for effect in effects])

        def work(books: HeldBooks) -> None:
            if not isinstance(books, SQLiteBooks):
                raise BeyondLog
            books.amend(place, effects, then)

        return work

    def _look_at(self, place: str, names: Sequence[str]) -> Then | None:
        """Return what is known of names; None where not even that can be read."""
        state, now = self._state, self._clock()
        with self._turns.turn:
            if self.short_way is not None:
                self.short_way.leave_lane()
            try:
                locks = self.locks
                locks.begin_writing()
                try:
                    logged = state.logged_books(
                        session=self.session, now=now, is_dead=locks.is_dead
                    )
                    filed = self._books(state.connection(), locks, now)
                    rows: HeldBooks = filed if logged is None else logged
                    left_open = {name: rows.open_changes(place, name) for name in names}
                    return Then(filed.counts(place, names), left_open)
                finally:
                    locks.end_writing()
            except (LedgerError, OSError, sqlite3.Error) as error:
                logger.warning("the ledger %s cannot even be read: %s", self.path, error)
                state.forget()
                return None

    def _end_tenure(self) -> None:
        """Let others have what this process holds beyond its need; a thread of it is one."""
        tenure = self._tenure
        if tenure is not None and tenure.taken:
            with self._turns.turn:
                tenure.end()
            self._turns.catch_up()

    def _tick(self) -> bool:
        tenure = self._tenure
        return tenure is not None and tenure.tick()

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
        if self.short_way is not None:
            self.short_way.leave_lane()
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
            if not self.session:
                self._begin_session(locks)
            logged = state.logged_books(session=self.session, now=now, is_dead=locks.is_dead)
            if logged is not None:
                try:
                    alarms = self._do(logged, steps)
                    state.commit(logged)
                except BeyondLog:
                    state.forget()
                else:
                    return alarms
            with state.transaction() as db:
                return self._do(self._books(db, locks, now), steps)
        except BaseException:
            state.forget()
            raise

    def _books(self, db: sqlite3.Connection, locks: ByteLocks, now: float) -> SQLiteBooks:
        return SQLiteBooks(
            db, session=self.session, now=now, is_dead=locks.is_dead, boot=self._boot
        )

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
        self.session = session
