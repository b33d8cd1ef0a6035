"""Statements that every request begins or ends with, without what SQLAlchemy costs for each.

Building a statement, finding it in the cache and wrapping its rows takes SQLAlchemy a quarter of a
millisecond of the processor, SQLite's own work a hundredth. So these statements are compiled once
to text, and on SQLite they go to connections of their own.

    BY_ID = Prepared(sa.select(table.c.name).where(table.c.id == sa.bindparam("id")))

    with database.brief() as brief:
        row = brief.one(BY_ID, id=some_id)      # a tuple with names, or None

Rows come as the driver gives them: SQLite knows no booleans, so `bool()` them.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Prepared:
    """A statement of SQLAlchemy's, compiled once for each kind of database.

    Args:
        statement: its parameters are `bindparam`s, none of them an expanding one.
        postgresql: the same for PostgreSQL, where SQLAlchemy has one for each.
    """

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete,
        *,
        postgresql: sa.Insert | None = None,
    ) -> None:
        self._statement = statement
        self._of_postgresql = statement if postgresql is None else postgresql
        self._sqlite: tuple[str, dict[str, Any]] | None = None
        self._postgresql: tuple[str, dict[str, Any]] | None = None
        columns = (
            statement.selected_columns
            if isinstance(statement, sa.Select)
            else statement.exported_columns
        )
        names = [str(column.key) for column in columns]
        self.row: Any = namedtuple("row", names) if names else None

    def for_sqlite(self) -> tuple[str, dict[str, Any]]:
        """Return the text, and the values that it has by itself."""
        if self._sqlite is None:
            compiled = self._statement.compile(dialect=sqlite_dialect(paramstyle="named"))
            self._sqlite = (str(compiled), dict(compiled.params))
        return self._sqlite

    def for_postgresql(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Return the text, and the values that it has by itself."""
        if self._postgresql is None:
            compiled = self._of_postgresql.compile(dialect=connection.dialect)
            self._postgresql = (str(compiled), dict(compiled.params))
        return self._postgresql


class Brief(ABC):
    """A transaction in which prepared statements are executed."""

    def one(self, prepared: Prepared, **values: Any) -> Any:
        """Return the row that there is, or None. Raises the driver's errors."""
        rows = self.all(prepared, **values)
        return rows[0] if rows else None

    @abstractmethod
    def all(self, prepared: Prepared, **values: Any) -> list[Any]:
        """Return all rows."""

    @abstractmethod
    def change(self, prepared: Prepared, **values: Any) -> int:
        """Return how many rows a statement that returns none has changed."""


class SqliteBrief(Brief):
    """On a connection of sqlite3."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, prepared: Prepared, **values: Any) -> list[Any]:
        return list(map(prepared.row._make, self._execute(prepared, values)))

    def change(self, prepared: Prepared, **values: Any) -> int:
        return self._execute(prepared, values).rowcount

    def _execute(self, prepared: Prepared, values: dict[str, Any]) -> sqlite3.Cursor:
        text, own = prepared.for_sqlite()
        return self._connection.execute(text, {**own, **values})


class PostgresBrief(Brief):
    """On one of SQLAlchemy's connections."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self, prepared: Prepared, **values: Any) -> list[Any]:
        return list(map(prepared.row._make, self._execute(prepared, values)))

    def change(self, prepared: Prepared, **values: Any) -> int:
        return self._execute(prepared, values).rowcount

    def _execute(self, prepared: Prepared, values: dict[str, Any]) -> sa.CursorResult[Any]:
        text, own = prepared.for_postgresql(self._connection)
        return self._connection.exec_driver_sql(text, {**own, **values})
