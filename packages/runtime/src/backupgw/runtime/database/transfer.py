"""The whole state out of a database and into another, of either kind.

What is exported is every table but those whose `info` says `{"exported": False}` or that only one
kind of database has: these hold what is made anew by itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, BinaryIO

from sqlalchemy import Column, Connection, Table, func, select, text

from . import schema
from .database import Database
from .errors import DatabaseConflict
from .state_file import Header, Record, StateFileError, StateReader, StateWriter
from .tables.all import metadata
from .tables.ledger import places as ledger_places
from .tables.tokens import token_changes

BATCH = 500
"""Rows written at a time."""


class StateNotEmpty(StateFileError):
    """There is a state already, and nobody said that it may go."""


class _Undone(Exception):
    """Ends a trial import."""


def exported_tables() -> list[Table]:
    """Return the tables of an export, those that others refer to first."""
    return [
        table
        for table in metadata.sorted_tables
        if table.info.get("exported", True) and "only" not in table.info
    ]


def export_state(database: Database, file: BinaryIO) -> Counter[str]:
    """Write the state as of one moment; return how many rows of each table.

    Raises:
        DatabaseError: it cannot be read.
        OSError: the file cannot be written.
    """
    now = datetime.fromtimestamp(database.now(), UTC)
    header = Header(
        schema.needed_version(), version("backupgw-runtime"), now.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    counts: Counter[str] = Counter()
    writer = StateWriter(file, header)
    with database.read() as connection:
        _without_timeouts(connection)
        streaming = {"stream_results": True, "yield_per": BATCH}
        for table in exported_tables():
            counts[table.name] = 0
            rows = connection.execute(
                select(table).order_by(*table.primary_key), execution_options=streaming
            )
            for row in rows.mappings():
                writer.add(table.name, dict(row))
                counts[table.name] += 1
    writer.finish()
    return counts


def import_state(
    database: Database, file: BinaryIO, name: str, *, replace: bool = False, dry_run: bool = False
) -> Counter[str]:
    """Bring an export in, all of it or nothing; return how many rows of each table.

    Args:
        name: the file's, for messages.
        replace: delete what is there first.
        dry_run: check everything, change nothing.

    Raises:
        StateFileError: the file is wrong, damaged or too new.
        StateNotEmpty: there is a state already.
        DatabaseError: it cannot be written.
        OSError: the file cannot be read.
    """
    reader = StateReader(file, name)
    if reader.header.schema > schema.needed_version():
        raise reader.mistake(
            f"has the tables of version {reader.header.schema}, made by backupgw "
            f"{reader.header.program}; this one knows them up to version "
            f"{schema.needed_version()}: run the newer one"
        )
    counts: Counter[str] = Counter()
    try:
        with database.begin() as connection:
            _without_timeouts(connection)
            _empty(connection, replace=replace)
            counts = _insert(connection, reader)
            _after(connection)
            if dry_run:
                raise _Undone
    except _Undone:
        pass
    except DatabaseConflict as error:
        raise StateFileError(f"{name}: its rows contradict each other: {error}") from error
    return counts


def _without_timeouts(connection: Connection) -> None:
    """A pipe may be slow, and a state large."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _empty(connection: Connection, *, replace: bool) -> None:
    tables = exported_tables()
    if connection.dialect.name == "postgresql":
        names = ", ".join(f'"{table.name}"' for table in tables)
        # Readers go on with what was there; writers wait, and then find the new.
        connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    found = {
        table.name: count
        for table in tables
        if (count := connection.execute(select(func.count()).select_from(table)).scalar_one())
    }
    if not found:
        return
    if not replace:
        raise StateNotEmpty(
            "there is a state already: "
            + ", ".join(f"{name} {count}" for name, count in found.items())
            + "; --replace deletes it (export it first)"
        )
    for table in reversed(tables):
        connection.execute(table.delete())


def _insert(connection: Connection, reader: StateReader) -> Counter[str]:
    tables = {table.name: table for table in exported_tables()}
    counts: Counter[str] = Counter(dict.fromkeys(tables, 0))
    for batch in _batches(reader.records()):
        first = batch[0]
        if (table := tables.get(first.table)) is None:
            raise reader.mistake(f"there is no table {first.table!r}", first.line)
        for record in batch:
            if why := _mistake(table, record.row):
                raise reader.mistake(f"{table.name}: {why}", record.line)
        connection.execute(table.insert(), [dict(record.row) for record in batch])
        counts[table.name] += len(batch)
    return counts


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Yield runs of rows of one table that have the same columns."""
    batch: list[Record] = []
    for record in records:
        if batch and (
            len(batch) >= BATCH
            or record.table != batch[0].table
            or record.row.keys() != batch[0].row.keys()
        ):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _mistake(table: Table, row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row, None where nothing is."""
    for name, value in row.items():
        if name not in table.columns:
            return f"there is no column {name!r}"
        column = table.columns[name]
        if value is None:
            if not column.nullable:
                return f"{name} is missing"
        elif not _fits(column, value):
            return f"{name} is not {column.type.python_type.__name__}"
    for column in table.columns:
        # What an older backupgw did not have yet must be able to be absent.
        if column.name not in row and not column.nullable and column.default is None:
            return f"{column.name} is missing"
    return None


def _fits(column: Column[Any], value: object) -> bool:
    wanted = column.type.python_type
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if wanted is str:
        # PostgreSQL has no room for these in a text.
        return isinstance(value, str) and "\0" not in value
    return isinstance(value, wanted)


def _after(connection: Connection) -> None:
    """Let numbers go on after the highest, and running gateways look at their tokens again."""
    known = func.coalesce(func.max(token_changes.c.number), 0)
    number = connection.execute(select(known)).scalar_one()
    connection.execute(
        token_changes.update().values(number=max(int(number), int(time.time() * 1000)) + 1)
    )
    if connection.dialect.name != "postgresql":
        return
    # The ledger goes with no export: what is used is known from the places alone, and a copy of the
    # figures would be old by the time it comes in. One that is here may have been left aside.
    connection.execute(ledger_places.update().values(stale=True))
    for table in exported_tables():
        column = table.autoincrement_column
        if column is None:
            continue
        highest = connection.execute(select(func.max(column))).scalar_one()
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        if highest is not None:
            connection.execute(select(func.setval(sequence, highest)))
