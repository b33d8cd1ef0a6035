"""What this node has promised and must not forget: a file in the state folder, on the node itself.

Backups and restores from the moment they were accepted until the Panel knows how they ended;
snapshots that are to be removed; and copies of what others know (servers, snapshots, statistics),
so that answers are there at once after a restart.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backupgw.runtime.command import CommandError

VERSION = 1
KEEP = 90 * 86_400.0
"""Seconds that ended operations are kept; a backup's UUID cannot be used again before."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE operations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('backup', 'restore')),
    server TEXT NOT NULL,
    backup TEXT NOT NULL,
    adapter TEXT NOT NULL,
    arguments TEXT NOT NULL,
    created REAL NOT NULL,
    finished REAL,
    successful INTEGER,
    outcome TEXT,
    error TEXT,
    reported REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_backup ON operations (backup) WHERE kind = 'backup';
CREATE UNIQUE INDEX one_restore ON operations (server) WHERE kind = 'restore' AND finished IS NULL;
CREATE INDEX unreported ON operations (next_try) WHERE finished IS NOT NULL AND reported IS NULL;
CREATE INDEX unfinished ON operations (number) WHERE finished IS NULL;
CREATE TABLE removed (snapshot TEXT PRIMARY KEY, repository TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE statistics (snapshot TEXT PRIMARY KEY, bytes INTEGER NOT NULL, files INTEGER NOT NULL);
CREATE TABLE copies (name TEXT PRIMARY KEY, text TEXT NOT NULL, time REAL NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""


class Kind(enum.StrEnum):
    """What an operation is."""

    BACKUP = "backup"
    RESTORE = "restore"


class AlreadyThere(Exception):
    """There is such an operation already."""


@dataclass(frozen=True)
class Operation:
    """A backup or a restore. Times are seconds since the epoch.

    Attributes:
        arguments: what was asked for besides.
        successful: None until it has ended.
        outcome: of a backup: what the Panel is told.
        reported: when the Panel took the report, or it was given up; None: it is still due.
        tries: how often the report was tried.
    """

    number: int
    kind: Kind
    server: str
    backup: str
    adapter: str
    arguments: Mapping[str, Any]
    created: float
    finished: float | None
    successful: bool | None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    reported: float | None = None
    tries: int = 0
    next_try: float = 0.0

    @property
    def unwanted(self) -> bool:
        """Whether the backup was deleted before it was complete."""
        return bool(self.arguments.get("unwanted"))

    @property
    def job(self) -> str:
        """The id of its job."""
        return f"wings-{self.kind}-{self.backup}-{self.number}"


class Records:
    """The file. For any thread; one process has it open at a time."""

    def __init__(self, path: Path) -> None:
        """Open it, and make it where it is missing.

        Raises:
            CommandError: it cannot be used.
        """
        self._lock = threading.Lock()
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path, timeout=20, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            # What is accepted must survive a power failure, too.
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(_SCHEMA)
            elif version != VERSION:
                raise CommandError(f"{path} was made by another version of backupgw; move it away")
        except (OSError, sqlite3.Error) as error:
            raise CommandError(f"cannot use {path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # -- operations

    def accept(
        self, kind: Kind, server: str, backup: str, adapter: str, arguments: Mapping[str, Any]
    ) -> Operation:
        """Note an operation that was asked for.

        Raises:
            AlreadyThere: of this backup, or of a restore to this server that has not ended.
        """
        try:
            with self._transaction() as db:
                number = db.execute(
                    "INSERT INTO operations (kind, server, backup, adapter, arguments, created)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (kind.value, server, backup, adapter, json.dumps(arguments), time.time()),
                ).lastrowid
        except sqlite3.IntegrityError as error:
            raise AlreadyThere(f"{kind} {backup}") from error
        found = self.find(number or 0)
        assert found is not None
        return found

    def withdraw(self, number: int) -> None:
        """Forget an operation that was accepted, and never put into the queue."""
        with self._transaction() as db:
            db.execute("DELETE FROM operations WHERE number = ?", (number,))

    def find(self, number: int) -> Operation | None:
        """Return an operation."""
        rows = self._rows("SELECT * FROM operations WHERE number = ?", (number,))
        return _operation(rows[0]) if rows else None

    def backup(self, backup: str) -> Operation | None:
        """Return the operation that makes, or has made, a backup."""
        rows = self._rows(
            "SELECT * FROM operations WHERE kind = 'backup' AND backup = ?", (backup,)
        )
        return _operation(rows[0]) if rows else None

    def unfinished(self) -> list[Operation]:
        """Return those that have not ended, oldest first."""
        query = "SELECT * FROM operations WHERE finished IS NULL ORDER BY number"
        return [_operation(row) for row in self._rows(query)]

    def finish(
        self,
        number: int,
        *,
        successful: bool,
        outcome: Mapping[str, Any] | None = None,
        error: str | None = None,
        report: bool = True,
    ) -> Operation | None:
        """Note how one has ended; None where that was known already.

        Args:
            report: whether the Panel is to be told.
        """
        now = time.time()
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE operations SET finished = ?, successful = ?, outcome = ?, error = ?,"
                " reported = ?, next_try = ? WHERE number = ? AND finished IS NULL",
                (
                    now, int(successful), json.dumps(dict(outcome or {})), error,
                    None if report else now, now, number,
                ),
            ).rowcount  # fmt: skip
            db.execute(
                "DELETE FROM operations WHERE reported IS NOT NULL AND finished < ?", (now - KEEP,)
            )
        return self.find(number) if changed else None

    def give_up(self, number: int) -> bool:
        """Note that nobody wants a backup any more that is being made; False: it has ended."""
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE operations SET arguments = json_set(arguments, '$.unwanted', json('true'))"
                " WHERE number = ? AND finished IS NULL",
                (number,),
            ).rowcount
        return bool(changed)

    def unwanted(self) -> set[str]:
        """Return the backups that were deleted before they were complete."""
        rows = self._rows(
            "SELECT backup FROM operations WHERE kind = 'backup'"
            " AND json_extract(arguments, '$.unwanted')"
        )
        return {row["backup"] for row in rows}

    def due(self, now: float) -> tuple[list[Operation], float | None]:
        """Return the reports that are due, and when the next one is (seconds since the epoch)."""
        rows = self._rows(
            "SELECT * FROM operations WHERE finished IS NOT NULL AND reported IS NULL"
            " ORDER BY next_try, number LIMIT 200"
        )
        found = [_operation(row) for row in rows]
        later = [each.next_try for each in found if each.next_try > now]
        return [each for each in found if each.next_try <= now], min(later, default=None)

    def reported(self, number: int) -> None:
        """Note that the Panel knows how one has ended, or never will."""
        with self._transaction() as db:
            db.execute(
                "UPDATE operations SET reported = ?, tries = tries + 1 WHERE number = ?",
                (time.time(), number),
            )

    def report_later(self, number: int, when: float) -> None:
        """Note that a report was tried in vain."""
        with self._transaction() as db:
            db.execute(
                "UPDATE operations SET next_try = ?, tries = tries + 1 WHERE number = ?",
                (when, number),
            )

    # -- snapshots

    def remove(self, snapshots: Iterable[str], repository: str) -> None:
        """Note snapshots that are to be removed."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO removed VALUES (?, ?, ?)",
                [(snapshot, repository, time.time()) for snapshot in snapshots],
            )

    def to_remove(self) -> dict[str, str]:
        """Return these, with their repositories."""
        return {row["snapshot"]: row["repository"] for row in self._rows("SELECT * FROM removed")}

    def removed(self, snapshots: Iterable[str]) -> None:
        """Note that they are gone."""
        with self._transaction() as db:
            many = [(snapshot,) for snapshot in snapshots]
            db.executemany("DELETE FROM removed WHERE snapshot = ?", many)
            db.executemany("DELETE FROM statistics WHERE snapshot = ?", many)

    def statistics(self) -> dict[str, tuple[int, int]]:
        """Return bytes and files of snapshots, as far as they were counted."""
        rows = self._rows("SELECT * FROM statistics")
        return {row["snapshot"]: (row["bytes"], row["files"]) for row in rows}

    def count(self, snapshot: str, size: int, files: int) -> None:
        """Note a snapshot's bytes and files: they never change."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO statistics VALUES (?, ?, ?)", (snapshot, size, files)
            )

    # -- copies

    def copy(self, name: str) -> str | None:
        """Return what was kept under a name."""
        rows = self._rows("SELECT text FROM copies WHERE name = ?", (name,))
        return str(rows[0]["text"]) if rows else None

    def keep_copy(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO copies VALUES (?, ?, ?)", (name, text, time.time()))


def _operation(row: sqlite3.Row) -> Operation:
    successful = row["successful"]
    return Operation(
        number=row["number"],
        kind=Kind(row["kind"]),
        server=row["server"],
        backup=row["backup"],
        adapter=row["adapter"],
        arguments=json.loads(row["arguments"]),
        created=row["created"],
        finished=row["finished"],
        successful=None if successful is None else bool(successful),
        outcome=json.loads(row["outcome"] or "{}"),
        error=row["error"],
        reported=row["reported"],
        tries=row["tries"],
        next_try=row["next_try"],
    )
