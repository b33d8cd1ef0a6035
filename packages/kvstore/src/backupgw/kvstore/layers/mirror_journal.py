"""What the places of a mirror missed, on disk, for all processes of this machine.

The journal does not say what was done but what is not right: a row for each name that a place does
not hold as the others do. To replay it is to make the name there what it is elsewhere, so replays
can be repeated, need no order and cost the same however often a name changed meanwhile.

Before a change begins at any place its names are recorded as intents. One that is found after a
crash tells which names may differ between the places.

Names are locked while they change, among threads and processes, by byte-range locks beside the
file (`ledger.locks`): two writers of one name would otherwise reach the places in different orders.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ..backends.errors import BackendError
from ..ledger.locks import ByteLocks
from ..names import RESERVED_PREFIX, KernelPath

VERSION = 1

_JOURNALS = 100
"""Journals of one mirror, one after the other, that are told from another mirror's."""

_SCHEMA = """
    BEGIN IMMEDIATE;
    CREATE TABLE mirror (id TEXT NOT NULL, generation INTEGER NOT NULL, unsure INTEGER NOT NULL);
    INSERT INTO mirror VALUES ('', 0, 0);
    CREATE TABLE places (place TEXT PRIMARY KEY, trusted INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE missed (
        place TEXT NOT NULL, name TEXT NOT NULL, folder TEXT NOT NULL, depth INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        PRIMARY KEY (place, name)
    ) WITHOUT ROWID;
    CREATE INDEX missed_names ON missed (name);
    CREATE INDEX missed_folders ON missed (place, folder);
    CREATE INDEX missed_depths ON missed (place, depth);
    CREATE TABLE intents (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = 1;
    COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Missed:
    """A name that a place does not hold as it should. See `Journal.settle`."""

    place: str
    name: str
    generation: int


class Journal:
    """The journal of one mirror.

    Args:
        path: its file; made with its folder where missing. One mirror, one file.
        sync: whether what is recorded outlasts a power loss.

    All methods raise BackendError where the file cannot be used.
    """

    def __init__(self, path: str, *, sync: bool = True) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._waiting: list[_Step] = []
        try:
            _prepare(path)
            self._writer = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise _translated(error, path) from error
        try:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
            self._reader = _connect(path)
            try:
                self._locks = ByteLocks(path + ".locks")
            except BaseException:
                self._reader.close()
                raise
        except BaseException as error:
            self._writer.close()
            if isinstance(error, sqlite3.Error):
                raise _translated(error, path) from error
            raise

    def close(self) -> None:
        with self._lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            self._locks.close()

    # -- changes

    def changing(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Hold names against all other changes, waiting for them."""
        return self._locks.changing("", names)

    def trying(self, name: str) -> AbstractContextManager[bool]:
        """Hold a name if nobody else does; yields whether that is so."""
        return self._locks.trying("", name)

    def begin(self, names: Iterable[str]) -> None:
        """Record that names may differ between the places from now on, durably."""
        names = [str(name) for name in names]
        self._write(
            lambda db, generation: db.executemany(
                "INSERT OR REPLACE INTO intents VALUES (?, ?)",
                [(name, generation) for name in names],
            )
        )

    def settle(
        self,
        names: Collection[str],
        *,
        right: Iterable[str],
        wrong: Iterable[str] = (),
    ) -> None:
        """Record how a change ended, durably, and drop its intent.

        Args:
            right: places that hold all the names as they should be.
            wrong: places that do not, or may not.
        """
        names = [str(name) for name in names]
        wrong = list(wrong)
        right = list(right)

        def work(db: sqlite3.Connection, generation: int) -> None:
            db.executemany("DELETE FROM intents WHERE name = ?", [(name,) for name in names])
            db.executemany(
                "DELETE FROM missed WHERE place = ? AND name = ?",
                [(place, name) for place in right for name in names],
            )
            _miss(db, wrong, names, generation)

        self._write(work)

    def miss(self, place: str, names: Collection[str]) -> None:
        """Record that a place does not hold names as it should."""
        names = [str(name) for name in names]
        self._write(lambda db, generation: _miss(db, [place], names, generation))

    def healed(self, row: Missed) -> None:
        """Drop a row, unless the place has missed the name again since."""
        self._write(
            lambda db, _: db.execute(
                "DELETE FROM missed WHERE place = ? AND name = ? AND generation = ?",
                (row.place, str(row.name), row.generation),
            )
        )

    # -- questions

    def missed_by(self, name: str) -> dict[str, Missed]:
        """Return the rows of a name by place."""
        rows = self._read("SELECT place, name, generation FROM missed WHERE name = ?", (str(name),))
        return {row[0]: _missed(row) for row in rows}

    def has_missed(self, place: str, name: str) -> bool:
        """Whether a place missed exactly this name."""
        query = "SELECT 1 FROM missed WHERE place = ? AND name = ?"
        return bool(self._read(query, (place, str(name))))

    def has_missed_in(self, place: str, folder: str) -> bool:
        """Whether a place missed a name in a folder."""
        query = "SELECT 1 FROM missed WHERE place = ? AND folder = ? LIMIT 1"
        return bool(self._read(query, (place, str(folder))))

    def names_missed_in(self, place: str, folder: str) -> Iterator[str]:
        """Yield the last segments of the names that a place missed in a folder, page by page."""
        after = ""
        while True:
            rows = self._read(
                "SELECT name FROM missed WHERE place = ? AND folder = ? AND name > ? "
                "ORDER BY name LIMIT 1000",
                (place, str(folder), after),
            )
            for (name,) in rows:
                yield name.rpartition("/")[2]
            if not rows:
                return
            after = rows[-1][0]

    def missed_at(self, place: str) -> Iterator[Missed]:
        """Yield what a place missed, what is deeper in folders first, page by page."""
        position: tuple[int, str] = (1 << 30, "")
        while True:
            rows = self._read(
                "SELECT place, name, generation, depth FROM missed WHERE place = ? "
                "AND (depth < ? OR (depth = ? AND name > ?)) ORDER BY depth DESC, name LIMIT 500",
                (place, position[0], position[0], position[1]),
            )
            for row in rows:
                yield _missed(row)
            if not rows:
                return
            position = (rows[-1][3], rows[-1][1])

    def count_missed(self, place: str) -> int:
        """How many names a place missed."""
        return int(self._read("SELECT count(*) FROM missed WHERE place = ?", (place,))[0][0])

    def intents(self) -> list[str]:
        """The names of changes that are under way or never ended."""
        return [_name(row[0]) for row in self._read("SELECT name FROM intents", ())]

    def is_intent(self, name: str) -> bool:
        return bool(self._read("SELECT 1 FROM intents WHERE name = ?", (str(name),)))

    # -- the mirror as a whole

    def identity(self) -> tuple[str, bool]:
        """Return the mirror's own name, "" for a new journal, and whether its places may differ
        in ways that are recorded nowhere."""
        ((identity, unsure),) = self._read("SELECT id, unsure FROM mirror", ())
        return identity, bool(unsure)

    def places(self) -> dict[str, bool]:
        """Return the places that belong to the mirror: trusted, or still to be filled."""
        return {
            place: bool(trusted)
            for place, trusted in self._read("SELECT place, trusted FROM places", ())
        }

    def found(self, places: Mapping[str, bool], *, identity: str, unsure: bool = False) -> None:
        """Begin a mirror of these places (and whether each is trusted), forgetting another."""

        def work(db: sqlite3.Connection, _: int) -> None:
            for table in ("places", "missed", "intents"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from just above
            db.execute("UPDATE mirror SET id = ?, unsure = ?", (identity, unsure))
            db.executemany("INSERT INTO places VALUES (?, ?)", list(places.items()))

        self._write(work)

    def trust(self, place: str, trusted: bool) -> None:
        """Add a place, or change whether it is trusted."""
        self._write(
            lambda db, _: db.execute(
                "INSERT OR REPLACE INTO places VALUES (?, ?)", (place, trusted)
            )
        )

    def sure(self) -> None:
        """Record that all differences of the places are known now."""
        self._write(lambda db, _: db.execute("UPDATE mirror SET unsure = 0"))

    # -- SQLite

    def _read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            with self._read_lock:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    def _write(self, work: _Work) -> None:
        """Do `work` in a transaction, together with what other threads wait to do: a sync costs
        the same for one as for ten."""
        step = _Step(work)
        with self._queue_lock:
            self._waiting.append(step)
        with self._lock:
            if not step.done:
                with self._queue_lock:
                    batch, self._waiting = self._waiting, []
                self._transact(batch)
        if step.error is not None:
            raise _translated(step.error, self.path) from step.error

    def _transact(self, batch: list[_Step]) -> None:
        db = self._writer
        error: sqlite3.Error | None = None
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE mirror SET generation = generation + 1")
            ((generation,),) = db.execute("SELECT generation FROM mirror").fetchall()
            for step in batch:
                step.work(db, generation)
            db.execute("COMMIT")
        except sqlite3.Error as caught:
            error = caught
            with suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
        for step in batch:
            step.error, step.done = error, True


class _Work(Protocol):
    """What a step does: (connection, generation of the transaction) -> anything."""

    def __call__(self, db: sqlite3.Connection, generation: int, /) -> object: ...


class _Step:
    __slots__ = ("done", "error", "work")

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.done = False
        self.error: sqlite3.Error | None = None


def _miss(
    db: sqlite3.Connection,
    places: Iterable[str],
    names: Iterable[str],
    generation: int,
) -> None:
    """Add rows; the folders above too, which may be missing as well."""
    rows: dict[tuple[str, str], tuple[object, ...]] = {}
    for place in places:
        for name in names:
            rows[place, name] = (*_row(place, name), generation)
            while name := name.rpartition("/")[0]:
                rows.setdefault((place, name), (*_row(place, name), generation))
    db.executemany(
        "INSERT INTO missed VALUES (?, ?, ?, ?, ?) ON CONFLICT (place, name) DO UPDATE "
        "SET generation = excluded.generation",
        rows.values(),
    )


def _row(place: str, name: str) -> tuple[str, str, str, int]:
    return place, name, name.rpartition("/")[0], name.count("/")


def _missed(row: Any) -> Missed:
    return Missed(row[0], _name(row[1]), row[2])


def _name(text: str) -> str:
    """Return a recorded name; the kernel's own are allowed as such again."""
    reserved = any(segment.startswith(RESERVED_PREFIX) for segment in text.split("/"))
    return KernelPath(text) if reserved else text


def new_identity() -> str:
    """Return a name for a new mirror."""
    return secrets.token_hex(16)


def next_identity(identity: str) -> str:
    """Return the name that a mirror has once a new journal has taken it over."""
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def is_later(later: str, identity: str) -> bool:
    """Whether `later` is what a mirror is called after some journals more."""
    for _ in range(_JOURNALS):
        identity = next_identity(identity)
        if identity == later:
            return True
    return False


def _prepare(path: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    # Never opened where it exists: closing it again would drop SQLite's locks on it, which belong
    # to the process and not to a descriptor (sqlite.org/howtocorrupt.html, 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with suppress(sqlite3.OperationalError):  # another process has just made the tables
                db.executescript(_SCHEMA)
            (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise BackendError(f"{path}: no journal of this version of the mirror ({version})")
    except BaseException:
        db.close()
        raise
    return db


def _translated(error: Exception, path: str) -> BackendError:
    if isinstance(error, OSError):
        return BackendError(f"the mirror's journal {path}: {error.strerror or error}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return BackendError(
            f"the mirror's journal {path} is damaged ({error}); moved away, all places are "
            "compared anew at the next start"
        )
    busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return BackendError(f"the mirror's journal {path}: {error}", retryable=busy)
