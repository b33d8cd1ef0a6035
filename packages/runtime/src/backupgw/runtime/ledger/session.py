"""A process's session with the ledger in PostgreSQL: transactions, death, forks, broken links."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.ledger import Alarm, Effect, LedgerError, NameLost, forks
from backupgw.kvstore.ledger.accounts import Levels
from backupgw.kvstore.ledger.held import NO_NEEDS, Needs
from backupgw.kvstore.ledger.turns import Step, Turns

from ..database import Database
from .claims import Claims
from .counting import PostgresBooks
from .doubts import READ_DOUBTS
from .keeper import Keeper
from .link import ATTEMPTS, CLOCK, WRITING, Link, Row
from .wants import Fenced, Wants, claims_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RENEW = f"""
    UPDATE ledger_sessions SET deadline = {CLOCK} + lease, batch = %s WHERE id = %s AND NOT dead
    RETURNING {CLOCK}, EXISTS (SELECT 1 FROM ledger_uncounted), EXISTS (SELECT 1 FROM ledger_doubts)
"""  # noqa: S608
_BEGIN = f"""
    INSERT INTO ledger_sessions (host, process, lease, deadline, batch, dead)
    VALUES (%s, %s, %s, {CLOCK} + %s, 0, false) RETURNING id
"""  # noqa: S608
# A copy of the database, and a standby that took over, may lack what the places have.
_ORIGIN = """
    SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
    FROM pg_control_system()
"""


_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'
"""


class _CutOffError(Exception):
    """The session was buried while it could not be heard of."""


@dataclass(slots=True)
class _Unanswered:
    """A transaction whose COMMIT was sent and not answered."""

    session: int
    batch: int
    steps: Sequence[Step[Any]]
    alarms: list[Alarm]
    numbers: list[int]


class PostgresSession:
    """Runs steps in transactions, from any thread.

    Args:
        database: migrated; not closed here.
        lease: seconds after which a session that is not heard of may be buried.
        host: for operators: where this process runs.
        levels, on_alarm: as the ledger has them.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease: float,
        host: str | None,
        levels: Levels,
        on_alarm: Callable[[Alarm], None] | None,
    ) -> None:
        self.database = database
        self.lease = lease
        self._host = host or socket.gethostname()
        self._levels = levels
        self._on_alarm = on_alarm
        self._alarms: deque[Alarm] = deque()
        self._link = Link(database, [_DURABLE])
        self._looked_at: Connection[Row] | None = None
        self._turns = Turns(self._transact, self._emit, forgotten=_count_anew)
        self._claims: Claims | None = None
        self._keeper: Keeper | None = None
        self._session = 0
        self._batch = 0
        self._counter = itertools.count()
        self._numbers: list[int] = []
        self._unanswered: _Unanswered | None = None
        self._to_release: list[int] = []
        self._kept_out = contextlib.ExitStack()

    @property
    def locks(self) -> Claims:
        """Raises LedgerError when the ledger is not open."""
        if self._claims is None:
            raise LedgerError("the ledger is not open")
        return self._claims

    @property
    def id(self) -> int:
        """The session's number; 0 before its first transaction."""
        return self._session

    def number(self) -> int:
        number = self._session << 32 | next(self._counter)
        self._numbers.append(number)
        return number

    def _claimant(self) -> tuple[int, int]:
        while not (session := self._session):
            self.run(_nothing)
        return session, session << 32 | next(self._counter)

    # -- the process

    def open(self) -> None:
        if self._claims is not None:
            raise LedgerError("the ledger is open already")
        self._begin_anew()
        forks.follow(self)
        try:
            self.run(PostgresBooks.reclaim)
        except BaseException:
            self._let_go()
            raise

    def _begin_anew(self) -> None:
        self._turns = Turns(self._transact, self._emit, forgotten=_count_anew)
        self._claims = Claims(self.database, self._claimant, self.bury_the_dead)
        self._keeper = Keeper(self.database, self)

    def bury_the_dead(self) -> None:
        """Bury whose lease has run out; begin a new session if this one was buried."""
        self.run(PostgresBooks.reclaim)

    def close(self) -> None:
        claims = self.locks
        try:
            self._turns.end()
            claims.close()
            if self._session:
                self.run(lambda books: books.bury(books.session))
        except LedgerError as error:
            # The session stays on record and is buried by whoever needs what it has.
            logger.warning("closing: %s", error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        claims, self._claims = self._claims, None
        with self._turns.turn:
            forks.leave(self)
            self._session = 0
            self._link.drop()
        if claims is not None:
            claims.close()

    def before_fork(self) -> None:
        """Keep everybody out until the fork is over."""
        with contextlib.ExitStack() as stack:
            for each in self._all_turns():
                stack.enter_context(each.turn)
            self._kept_out = stack.pop_all()

    def after_fork_in_parent(self) -> None:
        self._kept_out.close()
        for each in self._all_turns():
            if each.queue:  # by a thread that found the turn taken
                each.wake()

    def _all_turns(self) -> list[Turns]:
        return [self._turns] if self._claims is None else [self._turns, self._claims.turns]

    def after_fork_in_child(self) -> None:
        """Begin anew: connections, claims and session are the parent's."""
        self._link.leave_to_parent()
        self._alarms.clear()
        self._to_release.clear()
        self._unanswered = None
        self._session = 0
        if self._keeper is not None:
            self._keeper.leave_to_parent()
        if self._claims is not None:
            self._claims.leave_to_parent()
            self._begin_anew()

    # -- transactions

    def run(self, work: Callable[[PostgresBooks], T], needs: Needs = NO_NEEDS) -> T:
        return self._turns.run(Fenced(work, self.locks, needs=needs))

    def post(
        self,
        work: Callable[[PostgresBooks], object],
        needs: Needs = NO_NEEDS,
        *,
        linger: bool = False,
    ) -> None:
        self._turns.post(Fenced(work, self.locks, keep=True, needs=needs), linger=linger)

    def told_late(self, place: str, effects: Sequence[Effect]) -> Callable[[PostgresBooks], object]:
        """Return the work that tells the books what has happened without an intent; until then
        nobody else has the names, unless this session is taken for dead."""
        claims = [self.locks.hand_over(place, effect.name) for effect in effects]

        def work(books: PostgresBooks) -> None:
            books.amend(place, effects, claims)

        return work

    def catch_up(self) -> None:
        """Write down what could not be written while the database was away."""
        if self._turns.remembers or self._to_release:
            self.run(_nothing)
        self.locks.catch_up()

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
        if self._claims is None:
            raise LedgerError("the ledger is not open")
        try:
            with self._link.translated():
                self._try(steps)
        except LedgerError:
            if self._unanswered is not None:
                # Who waits is told that it failed. If it was done, it is taken back.
                self._to_release += self._unanswered.numbers
                self._unanswered.numbers = []
            raise

    def _try(self, steps: Sequence[Step[Any]]) -> None:
        for _ in range(ATTEMPTS):
            try:
                # What was not answered is asked after.
                self._link.attempts(lambda: self._attempt(steps))
            except _CutOffError:
                logger.warning(
                    "the ledger took this process for dead: it was not heard of for %.0f s",
                    self.lease,
                )
                self._session = 0
            else:
                return
        raise LedgerError("the ledger is too slow", retryable=True)

    def _attempt(self, steps: Sequence[Step[Any]]) -> None:
        with self._link.transaction() as db:
            if db is not self._looked_at:
                self._look_at_origin(db)
                self._looked_at = db
            if not self._session:
                self._begin_session(db)
            self._batch += 1
            books, claims, done = self._prepare(db, steps)
            alarms: list[Alarm] = []
            if done is not None:
                alarms += done.alarms
                for step in done.steps:
                    step.work = _stands(step)
            self._numbers = []
            for number in self._to_release:
                books.end(number)
            for step in steps:
                self._do(step, books, claims)
            alarms += books.due(self._levels)
            self._commit(db, books, steps, alarms)
        self._alarms.extend(alarms)

    def _prepare(
        self, db: Connection[Row], steps: Sequence[Step[Any]]
    ) -> tuple[PostgresBooks, dict[bytes, int], _Unanswered | None]:
        """Begin, and fetch. Returns the books, the claims that are there, and the transaction that
        was not answered if it was done."""
        unanswered = self._unanswered
        wants = Wants.of(steps, self._to_release)
        with db.pipeline():
            db.execute("BEGIN")
            if not wants.durable and unanswered is None:
                db.execute("SET LOCAL synchronous_commit = off")
            # By now a COMMIT that was not answered has either happened or never will.
            db.execute("SELECT pg_advisory_xact_lock(%s)", (WRITING,))
            batch = None
            if unanswered is not None:
                batch = db.execute(
                    "SELECT batch FROM ledger_sessions WHERE id = %s", (unanswered.session,)
                )
            alive = db.execute(_RENEW, (self._batch, self._session))
            answers = wants.ask(db)
        done = None
        if unanswered is not None and batch is not None:
            row = batch.fetchone()
            if row is not None and row[0] >= unanswered.batch:
                done = unanswered
        row = alive.fetchone()
        if row is None:
            raise _CutOffError
        now, counting, doubts = row
        books = PostgresBooks(db, session=self._session, now=now, counting=counting)
        claims = answers.tell(books)
        if doubts:
            books.fetched_doubts(db.execute(READ_DOUBTS).fetchall())
        return books, claims, done

    def _do(self, step: Step[Any], books: PostgresBooks, claims: dict[bytes, int]) -> None:
        step.error = None
        for key, holder in claims_of(step):
            if claims.get(key) != holder:
                step.error = NameLost(
                    "the ledger gave the name to somebody else, since this process was not heard "
                    "of for too long; nothing was changed",
                    retryable=True,
                )
                return
        try:
            step.result = step.work(books)
        except BackendError as error:
            step.error = error

    def _commit(
        self,
        db: Connection[Row],
        books: PostgresBooks,
        steps: Sequence[Step[Any]],
        alarms: list[Alarm],
    ) -> None:
        before, self._unanswered = self._unanswered, None
        numbers, self._numbers = self._numbers, []
        try:
            with db.pipeline():
                books.write_back()
                db.execute("COMMIT")
        except BaseException:
            if db.closed or db.broken:
                self._unanswered = _Unanswered(self._session, self._batch, steps, alarms, numbers)
            else:
                self._unanswered = before
            raise
        self._to_release.clear()

    def _begin_session(self, db: Connection[Row]) -> None:
        """Put on record, durably, that this process has the ledger open."""
        (session,) = db.execute(
            _BEGIN, (self._host, os.getpid(), self.lease, self.lease)
        ).fetchone() or (0,)
        self._session = session
        if self._keeper is not None:
            self._keeper.start()

    def _look_at_origin(self, db: Connection[Row]) -> None:
        try:
            origin = db.execute(_ORIGIN).fetchall()[0]
        except psycopg.errors.InsufficientPrivilege:
            logger.debug("not allowed to ask which database this is")
            return
        known = db.execute("SELECT origin FROM ledger_origin").fetchall()
        if origin in known:
            return
        db.execute("DELETE FROM ledger_origin")
        db.execute("INSERT INTO ledger_origin VALUES (%s) ON CONFLICT DO NOTHING", origin)
        if known:
            db.execute("UPDATE ledger_places SET stale = true")


def _count_anew(books: PostgresBooks) -> None:
    books.mark_all_stale()


def _nothing(_: PostgresBooks) -> None:
    return None


def _stands(step: Step[Any]) -> Callable[[PostgresBooks], Any]:
    """Return what a step has to do that was done already."""
    result, error = getattr(step, "result", None), step.error

    def work(_: PostgresBooks) -> Any:
        if error is not None:
            raise error
        return result

    return work
