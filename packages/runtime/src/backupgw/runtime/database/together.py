"""Small transactions of several threads on SQLite, committed as one: the disk is waited for once.

Each thread leaves its work in a line and waits for its turn to write, as it has to in any case.
Whoever's turn it is takes what is in the line by then, its own included, and does all of it in one
transaction; the others find theirs done. Work that raises is undone alone.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

from .brief import Brief, SqliteBrief
from .errors import DatabaseError, DatabaseUncertain

T = TypeVar("T")


class _Task(Generic[T]):
    """Work that waits to be done.

    Attributes:
        taken: somebody does it, or has; then there is a result or an error.
    """

    def __init__(self, work: Callable[[Brief], T], durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.taken = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Together:
    """Of one database.

    Args:
        alone: lets one thread of this process write at a time.
        connected: gives a connection, and translates what goes wrong.
        failure: translates what one thread's work did wrong.
    """

    def __init__(
        self,
        alone: Callable[[], AbstractContextManager[None]],
        connected: Callable[[], AbstractContextManager[sqlite3.Connection]],
        failure: Callable[[BaseException], DatabaseError],
    ) -> None:
        self._failure = failure
        self._alone = alone
        self._connected = connected
        self._line: list[_Task[Any]] = []
        self._lock = threading.Lock()

    def run(self, work: Callable[[Brief], T], *, durable: bool) -> T:
        """Return what `work` returns, or raise what it raises, once it is committed or undone.

        Raises:
            DatabaseError: nothing of it was done, or that is uncertain.
        """
        task = _Task(work, durable)
        with self._lock:
            self._line.append(task)
        try:
            with self._alone():
                if not task.taken:
                    self._do()
        except BaseException as error:
            with self._lock:
                if not task.taken:
                    self._line.remove(task)
                    raise
            if task.error is None:  # another thread is still at it
                raise DatabaseUncertain(f"{error} (another thread may yet commit this)") from error
            raise
        if task.error is not None:
            raise task.error
        return cast(T, task.result)

    def _do(self) -> None:
        """Do what is in the line."""
        with self._lock:
            tasks, self._line = self._line, []
            for task in tasks:
                task.taken = True
        try:
            with self._connected() as connection:
                self._transact(connection, tasks)
        except BaseException as error:
            for task in tasks:
                task.error = error
            raise

    def _transact(self, connection: sqlite3.Connection, tasks: list[_Task[Any]]) -> None:
        durable = any(task.durable for task in tasks)
        if not durable:
            connection.execute("PRAGMA synchronous = NORMAL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            brief = SqliteBrief(connection)
            if len(tasks) == 1:
                self._do_one(connection, brief, tasks[0])
                return
            for task in tasks:
                connection.execute("SAVEPOINT one")
                try:
                    task.result = task.work(brief)
                except sqlite3.IntegrityError as error:
                    task.error = self._failure(error)
                    connection.execute("ROLLBACK TO one")
                except sqlite3.Error:
                    raise  # the database's: all is undone, and everybody tries again
                except BaseException as error:  # noqa: BLE001 - its own thread raises it
                    task.error = error
                    connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        finally:
            if not durable:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                connection.execute("PRAGMA synchronous = FULL")

    def _do_one(self, connection: sqlite3.Connection, brief: Brief, task: _Task[Any]) -> None:
        """Do what nobody else has a part in, and commit it."""
        try:
            task.result = task.work(brief)
        except sqlite3.IntegrityError as error:
            task.error = self._failure(error)
        except sqlite3.Error:
            raise
        except BaseException as error:  # noqa: BLE001 - its own thread raises it
            task.error = error
        connection.execute("COMMIT" if task.error is None else "ROLLBACK")
