"""Versions of the tables: which one is there, which one this program needs, and the way up.

A version is the number that a revision's file begins with. SQLite is brought up to date when it is
opened; PostgreSQL by `backupgw config migrate`, because several gateways share it and somebody has
to decide when the old ones end.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from .database import Database
from .errors import DatabaseSchemaError
from .policy import sqlite_alone

VERSION_TABLE = "schema_version"
FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x6261636B7570_0001
"""Advisory lock of PostgreSQL: one migration at a time."""
LOCK_TIMEOUT = 60
"""Seconds that a migration waits for what running gateways hold in PostgreSQL."""

# Alembic hands its context to env.py through a module's variables.
_alembic = threading.Lock()


@dataclass(frozen=True)
class Revision:
    """A step from one version to the next."""

    version: int
    name: str


@dataclass(frozen=True)
class Migration:
    """What a migration did, or would do.

    Attributes:
        found: the version before; 0 for an empty database.
        needed: the version after.
        steps: the revisions between.
    """

    found: int
    needed: int
    steps: tuple[Revision, ...]


@cache
def revisions() -> tuple[Revision, ...]:
    """Return all that this program knows, oldest first."""
    names = sorted(path.name for path in (FOLDER / "versions").iterdir())
    matches = (re.fullmatch(r"([0-9]{4})_([a-z0-9_]+)\.py", name) for name in names)
    return tuple(Revision(int(m[1]), m[2].replace("_", " ")) for m in matches if m)


def needed_version() -> int:
    """Return the version that this program works with."""
    return revisions()[-1].version


def found_version(connection: Connection) -> int:
    """Return the version of the database's tables; 0 where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return 0
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return 0 if version is None else int(version)


def check(database: Database) -> None:
    """Raise DatabaseSchemaError unless the tables are of the version that this program needs."""
    with database.read() as connection:
        found = found_version(connection)
    _refuse_newer(database, found)
    if found < needed_version():
        raise DatabaseSchemaError(
            f"{database.address.shown} "
            + (f"has the tables of version {found}" if found else "has no tables yet")
            + f", this backupgw needs version {needed_version()}; run: backupgw config migrate"
        )


def migrate(database: Database, *, dry_run: bool = False) -> Migration:
    """Bring the tables up to date, whole or not at all; one process at a time.

    Raises:
        DatabaseSchemaError: they are newer than this program.
        DatabaseError: the database is away, or refuses.
    """
    if database.address.path is None:
        return _migrate(database, dry_run=dry_run)
    if dry_run and not database.address.path.exists():
        return _way(database, 0)
    with sqlite_alone(database.address.path):
        return _migrate(database, dry_run=dry_run)


def _migrate(database: Database, *, dry_run: bool) -> Migration:
    with database.read() as connection:
        migration = _way(database, found_version(connection))
    if dry_run or not migration.steps:
        return migration
    with database.begin() as connection:
        if database.dialect == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        # Again: another process may have been faster.
        migration = _way(database, found_version(connection))
        if migration.steps:
            _upgrade(connection)
    return migration


def _way(database: Database, found: int) -> Migration:
    _refuse_newer(database, found)
    steps = tuple(revision for revision in revisions() if revision.version > found)
    return Migration(found, needed_version(), steps)


def _refuse_newer(database: Database, found: int) -> None:
    if found > needed_version():
        raise DatabaseSchemaError(
            f"{database.address.shown} has the tables of version {found}, made by a newer "
            f"backupgw; this one knows them up to version {needed_version()}: run the newer one, "
            "or take back a state exported before"
        )


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _alembic:
        command.upgrade(config, "head")
