"""The file that tokens were kept in before there was a database: taken over once, then set aside.

The tables that it has are those of version 1 and 0.1.0, which is all there ever was.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert

from ..state_folder import OLD_TOKENS
from .database import Database
from .errors import DatabaseError
from .tables.tokens import spent_tokens, token_changes, tokens

FILE = OLD_TOKENS
TAKEN = f"{FILE}.taken-over"

_TABLES: tuple[tuple[str, Table], ...] = (
    (
        "SELECT id, digest, user AS user_name, name, actions, targets, created, expires, revoked, "
        "used FROM tokens",
        tokens,
    ),
    ("SELECT issuer, id, until FROM spent", spent_tokens),
)

_log = logging.getLogger(__name__)


def take_over(database: Database, folder: Path) -> None:
    """Bring the tokens of an older backupgw into the SQLite database of the same folder.

    Idempotent, and safe among processes: what is in the database already stays as it is, and the
    file is renamed when all is there.

    Raises:
        DatabaseError: the file cannot be read; it is left as it is.
    """
    path = folder / FILE
    if not path.exists():
        return
    with _alone(folder):
        if not path.exists():
            return
        try:
            # Closed before the renaming, so that its log is written back and gone.
            with contextlib.closing(_open(path)) as old:
                count = database.run(lambda connection: _copy(old, connection), idempotent=True)
            os.rename(path, folder / TAKEN)
        except (sqlite3.Error, OSError) as error:
            raise DatabaseError(
                f"the tokens of an older backupgw in {path} cannot be taken over: {error}; "
                "mend the file, or move it away to begin without them"
            ) from error
    _log.info("took over %d tokens from %s, now %s", count, path, TAKEN)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=10)
    db.row_factory = sqlite3.Row
    return db


def _copy(old: sqlite3.Connection, connection: Connection) -> int:
    (version,) = old.execute("PRAGMA user_version").fetchone()
    if version == 0:
        return 0  # made, and nothing in it: its maker died
    if version != 1:
        raise DatabaseError(f"{FILE} is of version {version}, made by another backupgw")
    count = 0
    for select, table in _TABLES:
        rows = [dict(row) for row in old.execute(select)]
        if rows:
            connection.execute(insert(table).on_conflict_do_nothing(), rows)
        count += len(rows) if table is tokens else 0
    (number,) = old.execute("SELECT number FROM generation").fetchone()
    connection.execute(
        token_changes.update().where(token_changes.c.number <= number).values(number=number + 1)
    )
    return count


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
