"""INSERT … ON CONFLICT DO NOTHING, which both databases have and SQLAlchemy has one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with a key of its is there; return whether it was inserted."""
    statement: Insert
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(table).values(**values).on_conflict_do_nothing()
    else:
        statement = sqlite.insert(table).values(**values).on_conflict_do_nothing()
    # Without the option an INSERT's count may not be kept.
    return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount == 1
