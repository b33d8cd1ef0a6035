"""The SQLite file of a ledger: where it lies, its tables, its connection, its errors."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3

from .. import spare_room
from .errors import LedgerError, LedgerFull

VERSION = 8
"""1 had no log, 2 none with records of new items (`sqlite_uploads`), 3 had these as JSON, 5 had no
numbers of files, 6 no notes of what changes while it is counted, 7 no numbers of counts."""

_PAGES_IN_NEED = 256
"""Pages that SQLite's log may have where there is little room: a count writes some for each
folder."""

# The tag of the log's records that belong to this file.
_LOG = "CREATE TABLE log (tag BLOB NOT NULL); INSERT INTO log VALUES (zeroblob(8));"
# Names that changed, or were about to, beneath the folder of a place that is listed just now: those
# directly in it, and folders beneath which something changed.
_NOTED = """
    CREATE TABLE noted (
        place TEXT NOT NULL, name TEXT NOT NULL, beneath INTEGER NOT NULL,
        PRIMARY KEY (place, name, beneath)
    ) WITHOUT ROWID;
"""
_SCHEMA = f"""
    BEGIN IMMEDIATE;
    {_LOG}
    {_NOTED}
    CREATE TABLE scopes (
        scope TEXT PRIMARY KEY,
        hard_bytes INTEGER, hard_objects INTEGER, soft_bytes INTEGER, soft_objects INTEGER,
        used_bytes INTEGER NOT NULL, used_objects INTEGER NOT NULL,
        reserved_bytes INTEGER NOT NULL, reserved_objects INTEGER NOT NULL,
        raised TEXT NOT NULL
    ) WITHOUT ROWID;
    -- What a place contributes to what a scope uses; `counted` is what a count in progress found.
    CREATE TABLE tallies (
        place TEXT NOT NULL, scope TEXT NOT NULL,
        bytes INTEGER NOT NULL, objects INTEGER NOT NULL,
        counted_bytes INTEGER NOT NULL DEFAULT 0, counted_objects INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (place, scope)
    ) WITHOUT ROWID;
    -- Reservations (name is null) and intents. Session 0 is a process that died, null is nobody's.
    -- Siblings are the other effects of a change that happens as one or not at all.
    CREATE TABLE held (
        number INTEGER PRIMARY KEY,
        session INTEGER, deadline REAL NOT NULL, place TEXT NOT NULL,
        holds TEXT NOT NULL,
        name TEXT, scopes TEXT, siblings TEXT,
        before_bytes INTEGER, before_objects INTEGER, after_bytes INTEGER, after_objects INTEGER,
        file INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX held_by_name ON held (place, name) WHERE name IS NOT NULL;
    CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL);
    -- The count of a place that was begun last, and the one that came to its end last: numbers that
    -- tell them apart, 0 for none.
    CREATE TABLE places (
        place TEXT PRIMARY KEY, stale INTEGER NOT NULL,
        begun INTEGER NOT NULL DEFAULT 0, finished INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    -- Folders that a count in progress has still to list; `lister` is the session that lists one.
    CREATE TABLE uncounted (
        place TEXT NOT NULL, folder TEXT NOT NULL, lister INTEGER, PRIMARY KEY (place, folder)
    ) WITHOUT ROWID;
    PRAGMA user_version = {VERSION};
    COMMIT;
"""
_WITH_COUNTS = f"""
    ALTER TABLE places ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE places ADD COLUMN finished INTEGER NOT NULL DEFAULT 0;
    PRAGMA user_version = {VERSION};
"""
_NEWER = f"ALTER TABLE uncounted ADD COLUMN lister INTEGER; {_NOTED} {_WITH_COUNTS}"
_WITH_FILES = "ALTER TABLE held ADD COLUMN file INTEGER NOT NULL DEFAULT 0;"
_FROM_VERSION = {
    1: f"BEGIN IMMEDIATE; {_LOG} {_WITH_FILES} {_NEWER} COMMIT;",
    **dict.fromkeys((2, 3, 4, 5), f"BEGIN IMMEDIATE; {_WITH_FILES} {_NEWER} COMMIT;"),
    6: f"BEGIN IMMEDIATE; {_NEWER} COMMIT;",
    7: f"BEGIN IMMEDIATE; {_WITH_COUNTS} COMMIT;",
}


def prepare(path: str) -> None:
    """Make the file, readable by its owner only, with its folder. Raises OSError."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    # Never opened where it exists: closing it again would drop SQLite's locks on it, which belong
    # to the process and not to a descriptor (sqlite.org/howtocorrupt.html, 2.2).
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def connect(path: str) -> sqlite3.Connection:
    """Open the file, making the tables of a new one; within the writers' lock.

    Raises:
        LedgerError: it is not a ledger of this version, or cannot be one where it lies.
        sqlite3.Error: SQLite's own complaints.
    """
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        # Small pages: a transaction writes three or four, whole, whatever it changes on them.
        db.execute("PRAGMA page_size = 1024")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise LedgerError(f"{path}: SQLite cannot use its write-ahead log there")
        db.execute("PRAGMA synchronous = NORMAL")
        pages = _PAGES_IN_NEED if spare_room.is_scarce(path) else 8000
        db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(_SCHEMA)
        elif version in _FROM_VERSION:
            db.executescript(_FROM_VERSION[version])
        elif version != VERSION:
            raise LedgerError(f"{path}: made by another version of the ledger ({version})")
    except BaseException:
        db.close()
        raise
    return db


def check_version(db: sqlite3.Connection, path: str) -> None:
    """Raise LedgerError where a process of another version has changed the file since this one
    opened it: from then on neither understands what the other writes."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise LedgerError(
            f"the ledger {path} was changed to version {version} by another version of backupgw "
            f"while this process, of version {VERSION}, had it open; restart this process"
        )


def translate(error: Exception, path: str) -> Exception:
    """Return the error of the kernel's family that an error of SQLite or of the locks stands for;
    any other is returned as it is."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return LedgerFull(f"the ledger {path} has no room left on its disk")
        return LedgerError(f"the ledger {path}: {error.strerror or error}")
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return LedgerFull(f"the ledger {path} has no room left on its disk")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerError(
            f"the ledger {path} is damaged ({error}); moved away, it is counted anew at the next "
            "start"
        )
    busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return LedgerError(f"the ledger {path}: {error}", retryable=busy)


def _is_full(path: str) -> bool:
    try:
        status = os.statvfs(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return False
    return status.f_bavail * status.f_bsize < 1 << 16 or (status.f_files > 0 and not status.f_ffree)


def boot_id() -> str:
    """Return what tells this start of the machine from others; "" where nothing does."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
