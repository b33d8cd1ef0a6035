"""Tokens in a SQLite file, shared by all processes of a gateway and by `backupgw token`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import state_folder
from ..authorisation.vocabulary import Action, Pattern, Scope
from ..settings import Settings
from .records import Token
from .store import TokenStoreError

FILE = "tokens.sqlite3"
VERSION = 1
KEPT = 90 * 86_400.0
"""Seconds that a token is listed after it ended."""
BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process's transaction; ours take milliseconds."""

_SCHEMA = """
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY, digest BLOB NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL,
        actions INTEGER NOT NULL, targets TEXT NOT NULL,
        created REAL NOT NULL, expires REAL, revoked REAL, used REAL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE spent (
        issuer TEXT NOT NULL, id TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (issuer, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX spent_until ON spent (until);
    CREATE TABLE generation (number INTEGER NOT NULL) STRICT;
    -- It only grows, also when the file was lost and is made anew.
    INSERT INTO generation VALUES (CAST(strftime('%s', 'now') AS INTEGER) * 1000);
"""
_SELECT = (
    "SELECT id, digest, user, name, actions, targets, created, expires, revoked, used FROM tokens"
)


class SqliteTokens:
    """A `TokenStore`. One connection, used by one thread at a time: every call is short.

    Args:
        path: the file; made, with its tables, when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._process = 0

    def add(self, token: Token) -> None:
        with self._transaction() as db:
            db.execute(
                "DELETE FROM tokens WHERE min(coalesce(revoked, expires), "
                "coalesce(expires, revoked)) < ?",
                (token.created - KEPT,),
            )
            values = (
                *(token.id, token.digest, token.user, token.name, int(token.scope.actions)),
                json.dumps([str(pattern) for pattern in token.scope.on]),
                *(token.created, token.expires, token.revoked, token.used),
            )
            db.execute("INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?,?,?)", values)
            db.execute("UPDATE generation SET number = number + 1")

    def find(self, token_id: str) -> Token | None:
        with self._connection() as db:
            return _find(db, token_id)

    def tokens(self, user: str | None = None) -> list[Token]:
        with self._connection() as db:
            rows = db.execute(
                _SELECT + " WHERE ?1 IS NULL OR user = ?1 ORDER BY created, id",
                (user,),
            )
            return [_token(row) for row in rows]

    def revoke(self, token_id: str, now: float) -> Token | None:
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, token_id)
            )
            if changed.rowcount:
                db.execute("UPDATE generation SET number = number + 1")
            return _find(db, token_id)

    def note_used(self, times: Mapping[str, float]) -> None:
        with self._transaction() as db:
            db.executemany(
                "UPDATE tokens SET used = ?1 WHERE id = ?2 AND coalesce(used, 0) < ?1",
                [(time, token_id) for token_id, time in times.items()],
            )

    def generation(self) -> int:
        with self._connection() as db:
            return int(db.execute("SELECT number FROM generation").fetchone()[0])

    def spend(self, issuer: str, unique: str, until: float, now: float) -> bool:
        with self._transaction() as db:
            # Few at a time: nobody who logs in pays for a whole day's.
            db.execute(
                "DELETE FROM spent WHERE (issuer, id) IN "
                "(SELECT issuer, id FROM spent WHERE until < ? LIMIT 100)",
                (now,),
            )
            added = db.execute(
                "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (issuer, unique, until)
            )
            return added.rowcount == 1

    def close(self) -> None:
        with self._lock:
            if self._db is not None and self._process == os.getpid():
                self._db.close()
            self._db = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._db is None or self._process != os.getpid():
                    # A connection does not survive a fork; the parent's is left to the parent.
                    self._db, self._process = _connect(self._path), os.getpid()
                yield self._db
            except sqlite3.Error as error:
                raise TokenStoreError(f"the tokens in {self._path}: {error}") from error
            except OSError as error:
                raise TokenStoreError(
                    f"the tokens in {self._path}: {error.strerror or error}"
                ) from error


def open_store(settings: Settings) -> SqliteTokens:
    """Return the store in the gateway's state folder.

    Raises:
        CommandError: the folder cannot be used.
    """
    return SqliteTokens(state_folder.prepare(state_folder.find(settings)) / FILE)


def _connect(path: Path) -> sqlite3.Connection:
    # One process at a time: SQLite does not wait for its turn when it turns the log on.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        return _prepared(path)
    finally:
        os.close(folder)


def _prepared(path: Path) -> sqlite3.Connection:
    state_folder.make_file(path)
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise TokenStoreError(f"{path}: SQLite cannot use its write-ahead log there")
        # A revoked or spent token must not come back after a power loss.
        db.execute("PRAGMA synchronous = FULL")
        if _version(db) == 0:
            db.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
        if (version := _version(db)) != VERSION:
            raise TokenStoreError(f"{path}: made by another version of backupgw ({version})")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _find(db: sqlite3.Connection, token_id: str) -> Token | None:
    row = db.execute(_SELECT + " WHERE id = ?", (token_id,)).fetchone()
    return None if row is None else _token(row)


def _token(row: tuple[Any, ...]) -> Token:
    identity, digest, user, name, actions, targets, *times = row
    scope = Scope(Action(actions), tuple(Pattern.parse(text) for text in json.loads(targets)))
    return Token(identity, digest, user, name, scope, *times)
