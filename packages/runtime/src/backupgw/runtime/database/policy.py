"""The connection policy: what every connection of either database is opened with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from .. import state_folder
from .clock import SQLITE_FUNCTION
from .errors import DatabaseSettingsError
from .failures import translate

BUSY_TIMEOUT = 15.0
"""Seconds to wait for another process's write transaction in SQLite; ours take milliseconds."""
POOL_TIMEOUT = 15.0
"""Seconds to wait for one of the pool's connections."""
RECYCLE = 1800
"""Seconds after which a connection is made anew: balancers forget old ones."""
CONNECT_TIMEOUT = 5
"""Seconds until a host of PostgreSQL must have answered."""
STATEMENT_TIMEOUT = 30
"""Seconds that a statement may take in PostgreSQL."""
LOCK_TIMEOUT = 10
"""Seconds that a statement may wait for a lock in PostgreSQL."""
IDLE_TIMEOUT = 60
"""Seconds that a transaction may do nothing in PostgreSQL: its locks stop everybody else."""

POSTGRESQL = ("postgresql:", "postgres:")
BEGIN = "backupgw_begin"
"""Execution option: how a transaction of SQLite begins: DEFERRED (the default), IMMEDIATE, NONE."""
NONE = "NONE"


@dataclass(frozen=True)
class Address:
    """Where a database is.

    Attributes:
        dialect: "sqlite" or "postgresql".
        path: SQLite's file.
        parameters: libpq's, with those of our policy that the URL leaves open.
        shown: for messages, without the password.
        secret: the password, where the URL or the caller gave one.
    """

    dialect: str
    shown: str
    path: Path | None = None
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)
    secret: str | None = field(default=None, repr=False)


def parse(url: str, *, application: str, password: str | None = None) -> Address:
    """Read `sqlite:///PATH` (four slashes: an absolute one) or a URL of libpq.

    Args:
        application: what PostgreSQL's pg_stat_activity shows.
        password: wins over one in the URL.

    Raises:
        DatabaseSettingsError: it is neither, or the driver is not installed.
    """
    if url.startswith("sqlite:"):
        return _parse_sqlite(url)
    if url.startswith(POSTGRESQL):
        return _parse_postgresql(url, application, password)
    # Not quoted: what somebody took for a URL may hold the password all the same.
    raise DatabaseSettingsError(
        "the database's URL is neither postgresql://USER@HOST/NAME nor sqlite:///PATH"
    )


def _parse_sqlite(url: str) -> Address:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or parts.fragment or not path or path == ":memory:":
        raise DatabaseSettingsError(
            "the database's URL is not SQLite's; write sqlite:////absolute/path or "
            "sqlite:///relative/path, without parameters"
        )
    return Address("sqlite", path, Path(path).absolute())


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{quote(str(path.absolute()))}"


def _parse_postgresql(url: str, application: str, password: str | None) -> Address:
    if find_spec("psycopg") is None:
        raise DatabaseSettingsError(
            "PostgreSQL needs the library psycopg; install backupgw-runtime[postgres]"
        )
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        # Not chained, not quoted: libpq repeats parts of the URL.
        what = "parameter" if "parameter" in str(error) else "form"
        raise DatabaseSettingsError(
            f"the database's URL has a {what} that PostgreSQL does not know; write "
            "postgresql://USER@HOST:PORT/NAME?PARAMETER=VALUE, with % before what is special"
        ) from None
    if password is not None:
        given["password"] = password
    timeouts = (
        f"-c statement_timeout={STATEMENT_TIMEOUT}s -c lock_timeout={LOCK_TIMEOUT}s "
        f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT}s"
    )
    # Last, so that what the URL says wins.
    options = f"{timeouts} {given.pop('options', None) or ''}".strip()
    policy = {
        "application_name": application,
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        # A standby cannot take what we write; among several hosts, find the one that can.
        "target_session_attrs": "read-write",
    }
    parameters = {**policy, **given, "options": options, "client_encoding": "utf8"}
    host = given.get("host") or given.get("hostaddr") or "local socket"
    port = f":{given['port']}" if given.get("port") else ""
    name = given.get("dbname") or given.get("service") or "default"
    secret = given.get("password")
    return Address(
        "postgresql",
        f"PostgreSQL {name} at {host}{port}",
        parameters=parameters,
        secret=None if secret is None else str(secret),
    )


def make_engine(address: Address, *, connections: int) -> Engine:
    """Return the pool for an address; nothing is connected yet.

    Args:
        connections: in use at a time, at most; more callers wait for their turn.
    """
    if address.dialect == "sqlite":
        engine = create_engine(
            "sqlite://",
            creator=lambda: connect_sqlite(address),
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            hide_parameters=True,
        )
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        pool_recycle=RECYCLE,
        pool_use_lifo=True,
        pool_pre_ping=True,
        hide_parameters=True,
    )

    def connect(
        _dialect: Dialect,
        _entry: ConnectionPoolEntry,
        _arguments: list[Any],
        parameters: dict[str, Any],
    ) -> DBAPIConnection | None:
        # libpq's own parameters, not SQLAlchemy's reading of a URL.
        parameters.update(address.parameters)
        return None

    event.listen(engine, "do_connect", connect)
    return engine


def connect_sqlite(address: Address) -> sqlite3.Connection:
    """Return a new connection. Raises sqlite3.Error."""
    assert address.path is not None
    # rw, not rwc: a file that vanished is an error, not an empty database.
    db = sqlite3.connect(
        f"file:{quote(str(address.path))}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # What was promised must not be gone after a power loss.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.create_function(SQLITE_FUNCTION, 0, time.time)
    except BaseException:
        db.close()
        raise
    return db


def _begin_sqlite(connection: Any) -> None:
    mode = connection.get_execution_options().get(BEGIN, "DEFERRED")
    if mode != NONE:
        connection.exec_driver_sql(f"BEGIN {mode}")


@contextlib.contextmanager
def sqlite_alone(path: Path) -> Iterator[None]:
    """Make the file, in WAL mode, and keep other processes from doing the same meanwhile.

    Raises:
        DatabaseError: it cannot be made or used.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DatabaseSettingsError(
            f"cannot use the folder {path.parent} of the database: {error.strerror}"
        ) from error
    try:
        # SQLite does not wait for its turn when it turns its log on.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _make_sqlite(path)
        yield
    finally:
        os.close(folder)


def _make_sqlite(path: Path) -> None:
    try:
        state_folder.make_file(path)
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as db:
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise DatabaseSettingsError(f"{path}: SQLite cannot use its write-ahead log there")
    except OSError as error:
        raise DatabaseSettingsError(f"cannot make the database {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise translate(error, str(path)) from error
