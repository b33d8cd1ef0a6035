"""Drivers' exceptions turned into `DatabaseError`s, by SQLSTATE and SQLite's error codes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sqlalchemy import exc

from .errors import (
    DatabaseBusy,
    DatabaseConflict,
    DatabaseDamaged,
    DatabaseError,
    DatabaseSchemaError,
    DatabaseSettingsError,
    DatabaseUnavailable,
)

# https://www.postgresql.org/docs/15/errcodes-appendix.html, by class or whole code.
_POSTGRESQL: tuple[tuple[str, type[DatabaseError]], ...] = (
    ("40", DatabaseBusy),  # serialization_failure, deadlock_detected, …
    ("55P03", DatabaseBusy),  # lock_not_available: lock_timeout
    ("57014", DatabaseBusy),  # query_canceled: statement_timeout
    ("08", DatabaseUnavailable),  # the connection
    ("25006", DatabaseUnavailable),  # read_only_sql_transaction: a standby, before it is promoted
    ("25P03", DatabaseUnavailable),  # idle_in_transaction_session_timeout
    ("53", DatabaseUnavailable),  # no disk space, memory, connections left
    ("57P", DatabaseUnavailable),  # shut down, crashed, starting up
    ("58", DatabaseUnavailable),  # an I/O error of its
    ("28", DatabaseSettingsError),  # password, user
    ("3D000", DatabaseSettingsError),  # no such database
    ("42501", DatabaseSettingsError),  # insufficient_privilege
    ("42P01", DatabaseSchemaError),  # undefined_table
    ("42703", DatabaseSchemaError),  # undefined_column
    ("23", DatabaseConflict),
)

_SQLITE: dict[int, type[DatabaseError]] = {
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
    sqlite3.SQLITE_FULL: DatabaseUnavailable,
    sqlite3.SQLITE_IOERR: DatabaseUnavailable,
    sqlite3.SQLITE_CANTOPEN: DatabaseUnavailable,
    sqlite3.SQLITE_NOMEM: DatabaseUnavailable,
    sqlite3.SQLITE_PERM: DatabaseSettingsError,
    sqlite3.SQLITE_READONLY: DatabaseSettingsError,
    sqlite3.SQLITE_CONSTRAINT: DatabaseConflict,
    sqlite3.SQLITE_CORRUPT: DatabaseDamaged,
    sqlite3.SQLITE_NOTADB: DatabaseDamaged,
}

_ADVICE: dict[type[DatabaseError], str] = {
    DatabaseSchemaError: "; run: backupgw config migrate",
    DatabaseDamaged: "; move it away and bring an export back by: backupgw state import FILE",
}


def translate(error: BaseException, what: str, secret: str | None = None) -> DatabaseError:
    """Return what to raise, `from error` where `secret` is not in its text.

    Args:
        what: the database, for the message; no password in it.
        secret: never to be shown.
    """
    if isinstance(error, DatabaseError):
        return error
    cause: BaseException = error
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        cause = error.orig
    kind = _kind(error, cause)
    text = " ".join(_text(cause).split())
    if secret:
        text = text.replace(secret, "***")
    return kind(f"{what}: {text}{_ADVICE.get(kind, '')}")


def cause_to_show(error: BaseException, secret: str | None) -> BaseException | None:
    """Return `error`, or None where it or what it came from holds the secret."""
    if secret and any(secret in f"{part} {part!r}" for part in _chain(error)):
        return None
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        part = todo.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            yield part
            todo += [part.__cause__, part.__context__]


def _kind(error: BaseException, cause: BaseException) -> type[DatabaseError]:
    if isinstance(error, exc.TimeoutError):
        return DatabaseUnavailable
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        return DatabaseError if code is None else _SQLITE.get(code & 0xFF, DatabaseError)
    state = getattr(cause, "sqlstate", None)
    if state:
        return next((kind for start, kind in _POSTGRESQL if state.startswith(start)), DatabaseError)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return DatabaseUnavailable
    if isinstance(cause, OSError):
        return DatabaseUnavailable
    # psycopg's, without a SQLSTATE: the connection was refused, broke, timed out.
    if type(cause).__name__ in {"OperationalError", "ConnectionTimeout", "InterfaceError"}:
        return _refused(str(cause))
    return DatabaseError


# What libpq reports of a refused connection comes as text alone (PQerrorMessage).
_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed for user",
)


def _refused(text: str) -> type[DatabaseError]:
    if any(words in text for words in _REFUSALS):
        return DatabaseSettingsError
    if 'FATAL:  database "' in text or 'FATAL:  role "' in text:
        return DatabaseSettingsError
    return DatabaseUnavailable


def _text(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    diagnostics = getattr(cause, "diag", None)
    # Without the detail: it quotes the row, and rows hold digests.
    primary = getattr(diagnostics, "message_primary", None)
    return str(primary or cause) or type(cause).__name__
