"""A database: its pool, its transactions, and how often they are tried."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, event, exc, select
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from .brief import Brief, PostgresBrief, Prepared, SqliteBrief
from .changes import Listener, take
from .clock import clock
from .errors import DatabaseBusy, DatabaseError, DatabaseUnavailable, DatabaseUncertain
from .failures import cause_to_show, translate
from .policy import BEGIN, BUSY_TIMEOUT, NONE, Address, connect_sqlite, make_engine
from .together import Together

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

DEADLINE = 20.0
"""Seconds after which `run` starts no further attempt."""
FIRST_WAIT = 0.02
LONGEST_WAIT = 1.0
"""Seconds between attempts: doubled each time, a random half of it."""
CONNECTIONS = 10

_log = logging.getLogger(__name__)


class Database:
    """Safe to use from any thread. After a fork the child has its own connections.

    Every transaction ends whole or not at all. What goes wrong is a `DatabaseError`, never a
    driver's exception, except in what `engine` is used for directly. (Within a block of `begin`,
    `read` or `autocommit` a statement raises SQLAlchemy's; it is translated where it leaves it.)
    """

    def __init__(self, address: Address, *, connections: int = CONNECTIONS) -> None:
        self.address = address
        self.dialect = address.dialect
        """ "sqlite" or "postgresql"."""
        self._engine = make_engine(address, connections=connections)
        self._process = os.getpid()
        self._inherited: list[Pool | deque[sqlite3.Connection]] = []
        self._briefly: deque[sqlite3.Connection] = deque()
        """Connections to SQLite that are free for `brief`."""
        self._together = Together(self._alone, self._briefly_connected, self.failure)
        self._writer = threading.Lock()
        self._closed = False
        self._listeners: list[Listener] = []
        event.listen(self._engine, "checkin", self._given_back)

    def __repr__(self) -> str:
        return f"<Database {self.address.shown}>"

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, of this process. Its exceptions are not translated."""
        if self._process != os.getpid():
            self._after_fork()
        return self._engine

    def _after_fork(self) -> None:
        # The parent's connections stay the parent's: never used, and never closed either, since
        # a close would speak to the server in its name, or drop SQLite's locks.
        self._inherited += [self._engine.pool, self._briefly]
        self._briefly = deque()
        self._together = Together(self._alone, self._briefly_connected, self.failure)
        self._engine.dispose(close=False)
        self._writer = threading.Lock()
        self._process = os.getpid()

    @contextlib.contextmanager
    def begin(self, *, serializable: bool = False) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, undone by an exception.

        On SQLite it is the only one of its kind at a time (BEGIN IMMEDIATE), so what it has read
        is still true when it writes. On PostgreSQL it is READ COMMITTED unless `serializable`:
        lock what must not change (`with_for_update`), or take SERIALIZABLE with `run`.

        Raises:
            DatabaseError: DatabaseUncertain where COMMIT was not answered.
        """
        if self.dialect == "sqlite":
            with self._alone():
                yield from self._transaction({BEGIN: "IMMEDIATE"})
        else:
            options = {"isolation_level": "SERIALIZABLE"} if serializable else {}
            yield from self._transaction(options)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, all of it as of one moment.

        Raises:
            DatabaseError: it cannot be read, or something was written.
        """
        if self.dialect == "sqlite":
            options: dict[str, Any] = {}
        else:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        yield from self._transaction(options)

    @contextlib.contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction: one round trip instead of three.

        Raises:
            DatabaseError: DatabaseUncertain where the connection broke under a statement.
        """
        # SQLAlchemy's own AUTOCOMMIT would undo our way of beginning transactions in SQLite.
        options = {BEGIN: NONE} if self.dialect == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        with self._translated(uncertain=True), self.engine.connect() as connection:
            yield connection.execution_options(**options)

    @contextlib.contextmanager
    def brief(self) -> Iterator[Brief]:
        """As `read`, for prepared statements (`database.brief`): for what every request does.

        Raises:
            DatabaseError: as that.
        """
        if self.dialect != "sqlite":
            with self.read() as connection:
                yield PostgresBrief(connection)
            return
        with self._briefly_connected() as connection:
            connection.execute("BEGIN")
            yield SqliteBrief(connection)
            connection.execute("COMMIT")

    def look_up(self, prepared: Prepared, **values: Any) -> Any:
        """Return the row that one statement finds, or None.

        Raises:
            DatabaseError: as `read`.
        """
        if self.dialect != "sqlite":
            with self.autocommit() as connection:
                return PostgresBrief(connection).one(prepared, **values)
        with self._briefly_connected() as connection:  # a statement is a transaction by itself
            return SqliteBrief(connection).one(prepared, **values)

    def run_brief(
        self,
        work: Callable[[Brief], T],
        *,
        idempotent: bool = False,
        durable: bool = True,
        deadline: float = DEADLINE,
    ) -> T:
        """As `run`, for prepared statements.

        On SQLite, what several threads want at a time is one transaction, and waits for the disk
        once. `work` may therefore be run again where another's failed.

        Args:
            durable: False where what was written may be gone after a power loss, on SQLite.
        """

        def once() -> T:
            if self.dialect == "sqlite":
                return self._together.run(work, durable=durable)
            with self.begin() as connection:
                return work(PostgresBrief(connection))

        return self._repeated(once, idempotent, deadline)

    @contextlib.contextmanager
    def _briefly_connected(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():
            self._after_fork()
        connection: sqlite3.Connection | None = None
        try:
            try:
                connection = self._briefly.pop()
            except IndexError:
                connection = connect_sqlite(self.address)
            yield connection
        except BaseException as error:
            if connection is not None:
                try:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                except sqlite3.Error:
                    connection.close()
                    connection = None
            if isinstance(error, sqlite3.Error):
                raise self.failure(error) from error
            raise
        finally:
            if connection is not None:
                if self._closed:
                    connection.close()
                else:
                    self._briefly.append(connection)

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        idempotent: bool = False,
        serializable: bool = False,
        deadline: float = DEADLINE,
    ) -> T:
        """Run `work` in a transaction of `begin` and return what it returns, trying again.

        Repeated, with growing waits, where the transaction certainly did nothing: serialization
        failure, deadlock, lock time-out, a connection that could not be had or broke before COMMIT.
        `work` must therefore change nothing but the database.

        Args:
            idempotent: doing it twice is as good as once, so it is repeated also where COMMIT was
                not answered; otherwise that is DatabaseUncertain.
            deadline: seconds after which no further attempt begins.

        Raises:
            DatabaseError: the last attempt's.
        """

        def once() -> T:
            with self.begin(serializable=serializable) as connection:
                return work(connection)

        return self._repeated(once, idempotent, deadline)

    def _repeated(self, once: Callable[[], T], idempotent: bool, deadline: float) -> T:
        ends = time.monotonic() + deadline
        wait = FIRST_WAIT
        while True:
            try:
                return once()
            except DatabaseUnavailable as error:
                again = idempotent if isinstance(error, DatabaseUncertain) else error.retryable
                pause = wait * random.uniform(0.5, 1)  # noqa: S311 - only spreads the attempts
                if not again or time.monotonic() + pause >= ends:
                    raise
                _log.debug("trying again in %.2f s: %s", pause, error)
            time.sleep(pause)  # back-off between attempts; nothing tells when the database is back
            wait = min(2 * wait, LONGEST_WAIT)

    def subscribe(self, listener: Listener) -> None:
        """Have a function told of what transactions of this process have changed (`changes`). It
        is called by their threads, must not raise, and should not wait long."""
        self._listeners.append(listener)

    def now(self, connection: Connection | None = None) -> float:
        """Return the database's time: seconds since 1970. In statements, use `clock()`.

        Raises:
            DatabaseError: it cannot be asked.
        """
        if self.dialect == "sqlite":
            return time.time()
        if connection is not None:
            return float(connection.execute(select(clock())).scalar_one())
        with self.autocommit() as own:
            return float(own.execute(select(clock())).scalar_one())

    def own_connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a psycopg connection outside the pool, in autocommit: for LISTEN and for advisory
        locks of a session. The caller closes it, and translates its errors by `failure`.

        Raises:
            DatabaseError: it cannot be had.
        """
        assert self.dialect == "postgresql", "SQLite has no sessions"
        import psycopg

        try:
            return psycopg.connect(autocommit=True, **self.address.parameters)
        except psycopg.Error as error:
            raise self.failure(error) from cause_to_show(error, self.address.secret)

    def failure(self, error: BaseException) -> DatabaseError:
        """Return the `DatabaseError` for an exception of SQLAlchemy or a driver."""
        return translate(error, self.address.shown, self.address.secret)

    def close(self) -> None:
        """Close the connections. What is in use is closed when it is given back. Idempotent."""
        if not self._closed:
            self._closed = True
            self.engine.dispose()
            with contextlib.suppress(IndexError):
                while True:
                    self._briefly.pop().close()

    def _given_back(self, _connection: object, entry: ConnectionPoolEntry) -> None:
        if self._closed:
            # The pool that it goes back to was disposed of; nobody would ever close it there.
            entry.invalidate()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _transaction(self, options: dict[str, Any]) -> Iterator[Connection]:
        with contextlib.ExitStack() as stack:
            with self._translated():
                connection = stack.enter_context(self.engine.connect())
                connection = connection.execution_options(**options)
                connection.begin()
                take(connection)  # of a transaction on this connection that was undone
            try:
                with self._translated():
                    yield connection
            except BaseException:
                # A connection that broke cannot roll back; the server does it by itself.
                with contextlib.suppress(exc.SQLAlchemyError):
                    connection.rollback()
                raise
            what = take(connection) if self._listeners else frozenset()
            try:
                with self._translated(uncertain=True):
                    connection.commit()
            finally:
                if what:
                    for listener in self._listeners:
                        listener(what)

    @contextlib.contextmanager
    def _translated(self, *, uncertain: bool = False) -> Iterator[None]:
        try:
            yield
        except (exc.DBAPIError, exc.TimeoutError) as error:
            failure = self.failure(error)
            broken = isinstance(error, exc.DBAPIError) and error.connection_invalidated
            if uncertain and broken:
                failure = DatabaseUncertain(f"{failure} (in the middle of a commit)")
            raise failure from cause_to_show(error, self.address.secret)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer of this process at a time: SQLite's own waiting is a poll, and unfair."""
        lock = self._writer if self._process == os.getpid() else None
        if lock is None:
            self._after_fork()
            lock = self._writer
        if not lock.acquire(timeout=BUSY_TIMEOUT):
            raise DatabaseBusy(
                f"{self.address.shown}: another transaction took longer than {BUSY_TIMEOUT:.0f} s"
            )
        try:
            yield
        finally:
            lock.release()
