"""What commands and webhooks are still to be told: a small SQLite file that outlives a restart.

Several worker processes may share one file. Each hook is served by one of them at a time: whoever
takes a letter pushes the hook's `next_try` behind the time the attempt may last, so a worker that
dies holds its hook up for that long and no longer. A letter is delivered at least once; its id
tells a receiver what came twice.

Bounded: a hook holds at most so many letters (the oldest make room) and none past its age. WAL
without a sync at each commit: a process that is killed loses nothing, a power loss may cost the
last moments.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backupgw.runtime.command import CommandError

VERSION = 1

_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE letters (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        hook TEXT NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL, time REAL NOT NULL,
        text TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX letters_of_hook ON letters (hook, number);
    -- One row a hook: `next_try` is the end of its pause, or of an attempt that `owner` makes.
    CREATE TABLE hooks (
        hook TEXT PRIMARY KEY, failures INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    PRAGMA user_version = {VERSION};
    COMMIT;
"""


class JournalError(CommandError):
    """The journal cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One event on its way to one hook.

    Attributes:
        number: of the letter in the journal.
        id, type, time, text: the event's (`records.Message`).
        attempts: that failed before this one.
        failures: of the hook in a row, whatever the letter.
        owner: the claim that `settle` needs.
    """

    number: int
    id: str
    type: str
    time: float
    text: str
    attempts: int
    failures: int
    owner: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What `claim` found: a letter, or the seconds until there may be one (None: no letter)."""

    letter: Letter | None
    wait: float | None
    expired: int = 0


class Journal:
    """The letters of all hooks. For any thread."""

    def __init__(self, path: str) -> None:
        """Open the file, making it and its folder where they are missing.

        Raises:
            JournalError: it cannot be opened, is damaged or of another version.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
            # Its owner's only: events name users and repositories.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"cannot open the events' journal {path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise JournalError(
                f"the events' journal {path} cannot be used ({error}); moved away, it is made anew "
                "and what hooks were still to be told is lost"
            ) from error
        except JournalError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if self._version() == 0:
            try:
                self._db.executescript(_SCHEMA)
            except sqlite3.OperationalError:
                # Another worker made the tables in the same moment.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if self._version() == 0:
                    raise
        if self._version() != VERSION:
            raise JournalError(
                f"the events' journal {self._path} was made by another version of backupgw; "
                "move it away"
            )

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back itself, on a full disk for one.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def keep_only(self, hooks: Sequence[str]) -> int:
        """Forget hooks that the settings no longer have; return how many letters that costs."""
        marks = ",".join("?" * len(hooks))
        with self._transaction() as db:
            db.execute(f"DELETE FROM hooks WHERE hook NOT IN ({marks})", hooks)  # noqa: S608 - marks
            return db.execute(
                f"DELETE FROM letters WHERE hook NOT IN ({marks})",  # noqa: S608 - marks
                hooks,
            ).rowcount

    def add(
        self, letters: Sequence[tuple[str, str, str, float, str]], limit: int
    ) -> dict[str, int]:
        """Add letters: (hook, id, type, time, text), all or none.

        Returns:
            By hook, how many of its oldest letters made room, so that it holds `limit` at most.

        Raises:
            sqlite3.Error: nothing was added.
        """
        lost: dict[str, int] = {}
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO letters (hook, id, type, time, text) VALUES (?, ?, ?, ?, ?)", letters
            )
            for hook in {letter[0] for letter in letters}:
                dropped = db.execute(
                    "DELETE FROM letters WHERE hook = ?1 AND number <= (SELECT number FROM letters"
                    " WHERE hook = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                    (hook, limit),
                ).rowcount
                if dropped:
                    lost[hook] = dropped
        return lost

    def claim(self, hook: str, now: float, lease: float, keep_for: float, pause: float) -> Claim:
        """Take the hook's oldest letter that is due, unless the hook pauses or another has it.

        Args:
            now: seconds since the epoch.
            lease: seconds that the attempt may last; afterwards others take it for dead.
            keep_for: seconds; older letters are thrown away.
            pause: seconds; the longest pause there can be. A `next_try` further off was written
                before the clock was set back.

        Raises:
            sqlite3.Error: the journal failed.
        """
        furthest = now + max(pause, lease)
        with self._transaction() as db:
            expired = db.execute(
                "DELETE FROM letters WHERE hook = ? AND time < ?", (hook, now - keep_for)
            ).rowcount
            db.execute("INSERT OR IGNORE INTO hooks (hook) VALUES (?)", (hook,))
            failures, pauses = db.execute(
                "SELECT failures, next_try FROM hooks WHERE hook = ?", (hook,)
            ).fetchone()
            row = db.execute(
                "SELECT number, id, type, time, text, attempts FROM letters"
                " WHERE hook = ? AND (next_try <= ? OR next_try > ?) ORDER BY number LIMIT 1",
                (hook, now, furthest),
            ).fetchone()
            if row is None:
                (due,) = db.execute(
                    "SELECT min(next_try) FROM letters WHERE hook = ?", (hook,)
                ).fetchone()
                return Claim(None, None if due is None else max(due, pauses) - now, expired)
            if now < pauses <= furthest:
                return Claim(None, pauses - now, expired)
            owner = secrets.token_hex(8)
            db.execute(
                "UPDATE hooks SET next_try = ?, owner = ? WHERE hook = ?",
                (now + lease, owner, hook),
            )
        return Claim(
            Letter(row[0], row[1], row[2], row[3], row[4], row[5], failures, owner), 0.0, expired
        )

    def done(self, hook: str, letter: Letter, *, answered: bool) -> None:
        """Throw a letter away: delivered, or (`answered` False) given up for good.

        Raises:
            sqlite3.Error: the letter stays, and will be delivered again.
        """
        with self._transaction() as db:
            db.execute("DELETE FROM letters WHERE number = ?", (letter.number,))
            db.execute(
                "UPDATE hooks SET next_try = 0, owner = '', failures = failures * ?"
                " WHERE hook = ? AND owner = ?",
                (0 if answered else 1, hook, letter.owner),
            )

    def later(
        self, hook: str, letter: Letter, *, letter_at: float, hook_at: float, counts: bool
    ) -> None:
        """Put a letter back.

        Args:
            letter_at: when it is due again, in seconds since the epoch.
            hook_at: until when the hook pauses.
            counts: as a failed attempt.

        Raises:
            sqlite3.Error: the letter stays, due when the claim ends.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE letters SET attempts = attempts + ?, next_try = ? WHERE number = ?",
                (int(counts), letter_at, letter.number),
            )
            db.execute(
                "UPDATE hooks SET next_try = ?, owner = '', failures = failures + ?"
                " WHERE hook = ? AND owner = ?",
                (hook_at, int(counts), hook, letter.owner),
            )

    def pending(self, hook: str) -> int:
        """Return how many letters wait."""
        with self._lock:
            row = self._db.execute(
                "SELECT count(*) FROM letters WHERE hook = ?", (hook,)
            ).fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
