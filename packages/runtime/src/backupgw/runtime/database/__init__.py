"""The gateway's database: SQLite in the state folder, or a PostgreSQL that gateways share.

    database = open_database("postgresql://backupgw@db.example/backupgw")

    def work(connection: Connection) -> int:
        return connection.execute(update(tokens).where(...).values(revoked=clock())).rowcount

    database.run(work)                          # tried again where that is safe
    with database.begin() as connection: ...    # once
    with database.read() as connection: ...     # one moment's state

Statements are SQLAlchemy Core's. Times come from the database's clock, `clock()` in a statement and
`database.now()` outside: gateways' own clocks differ. What goes wrong is a `DatabaseError`.

Importing this package takes a tenth of a second or two: commands import it where they need it.

How to add tables for a subject of your own, say jobs:

1. `tables/jobs.py` declares them with SQLAlchemy in `tables.metadata`, as `tables/tokens.py` does,
   and `tables/all.py` imports it. A table that only PostgreSQL has is marked
   `info={"only": "postgresql"}`.
2. `migrations/versions/NNNN_jobs.py` makes them, with the next free number as `revision` and the
   one before as `down_revision`, by `alembic.op`. It runs on both databases inside one transaction
   (no CREATE INDEX CONCURRENTLY); what is for one only asks `op.get_bind().dialect.name`. A
   released revision is never changed again: add another. There is no way down.
3. `tests/runtime/test_database_schema.py` compares what the revisions made with the metadata.
4. `backupgw state export` and `import` take every table along, also between SQLite and PostgreSQL,
   but those marked `info={"exported": False}` and those of one kind of database.

Rules: BOOLEAN is `Boolean`, times are `Double` (seconds since 1970), JSON is `Text`; no type,
function or syntax that only one of the two databases has, unless the table is that one's alone.
"""

from __future__ import annotations

from sqlalchemy import Connection

from . import schema
from .changes import changed
from .clock import clock
from .database import Database
from .errors import (
    DatabaseBusy,
    DatabaseConflict,
    DatabaseDamaged,
    DatabaseError,
    DatabaseSchemaError,
    DatabaseSettingsError,
    DatabaseUnavailable,
    DatabaseUncertain,
)
from .inserts import insert_new
from .policy import parse, sqlite_url

__all__ = [
    "Connection",
    "Database",
    "DatabaseBusy",
    "DatabaseConflict",
    "DatabaseDamaged",
    "DatabaseError",
    "DatabaseSchemaError",
    "DatabaseSettingsError",
    "DatabaseUnavailable",
    "DatabaseUncertain",
    "changed",
    "clock",
    "connect",
    "insert_new",
    "open_database",
    "sqlite_url",
]


def connect(
    url: str, *, application: str = "backupgw", password: str | None = None, connections: int = 10
) -> Database:
    """Return a database whatever its tables are: for migrations. Nothing is connected yet.

    Args:
        url, application, password, connections: as `open_database` takes them.

    Raises:
        DatabaseSettingsError: the URL is wrong, or PostgreSQL's driver is not installed.
    """
    return Database(parse(url, application=application, password=password), connections=connections)


def open_database(
    url: str, *, application: str = "backupgw", password: str | None = None, connections: int = 10
) -> Database:
    """Return a database whose tables are the ones that this program needs.

    SQLite's file is made and migrated on the way; several processes may do it at once.

    Args:
        url: `postgresql://USER@HOST:PORT/NAME?PARAMETER=VALUE` as libpq reads it, a socket's
            folder as `?host=/run/postgresql`; or `sqlite:////absolute/path`.
        application: what PostgreSQL's pg_stat_activity shows.
        password: for PostgreSQL; otherwise the URL's, PGPASSWORD's or ~/.pgpass's.
        connections: in use at a time, at most; more callers wait for their turn.

    Raises:
        DatabaseSettingsError: the URL, the user or the password is wrong.
        DatabaseSchemaError: PostgreSQL has to be migrated, or either is newer than this program.
        DatabaseUnavailable: it does not answer.
    """
    database = connect(url, application=application, password=password, connections=connections)
    try:
        if database.dialect == "sqlite":
            schema.migrate(database)
        else:
            schema.check(database)
    except BaseException:
        database.close()
        raise
    return database
