"""What a count has listed of a folder: the sums, and what each item added to them.

A name that changes while its folder is listed is looked up afterwards, and counts with what was
found instead of what the list said; so that has to be known of each. And while names come and go,
some places list one twice that stays as it is (Drime, Dropbox): it counts once. All of this lies in
a database of its own that SQLite spills to a temporary file and that ends with its connection:
memory stays the same however many items there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

from .errors import LedgerError
from .records import NOTHING, Amount

Scopes = tuple[str, ...]

_AT_ONCE = 500
"""Items kept in memory until they are written."""


class Listed:
    """Of one folder at a time. All methods raise LedgerError."""

    def __init__(self) -> None:
        try:
            # "" is a private database on disk, in a file that has no name (sqlite.org/inmemorydb).
            self._db = sqlite3.connect("", isolation_level=None)
            for statement in (
                "PRAGMA journal_mode = OFF",
                "CREATE TABLE listed (name TEXT, size INTEGER, scopes INTEGER)",
            ):
                self._db.execute(statement)
        except sqlite3.Error as error:
            raise _translated(error) from error
        self._new: list[tuple[str, int, int]] = []
        self._numbers: dict[Scopes, int] = {}
        self._sums: list[list[int]] = []
        self._known: list[Scopes] = []
        self._indexed = False
        self.count = 0
        """Items of the folder."""

    def close(self) -> None:
        """Let go of it all."""
        self._db.close()

    def begin(self) -> None:
        """Begin another folder."""
        try:
            if self._indexed:
                self._db.execute("DROP INDEX by_name")
            if self.count:
                self._db.execute("DELETE FROM listed")
        except sqlite3.Error as error:
            raise _translated(error) from error
        self._new.clear()
        self._numbers.clear()
        self._sums.clear()
        self._known.clear()
        self._indexed = False
        self.count = 0

    def add(self, name: str, size: int, scopes: Scopes) -> None:
        """Let an item of the list count."""
        number = self._number(scopes)
        total = self._sums[number]
        total[0] += size
        total[1] += 1
        self.count += 1
        self._new.append((name, size, number))
        if len(self._new) >= _AT_ONCE:
            self._write()

    def count_once(self) -> None:
        """The list is done: let a name that it had twice count once. Idempotent."""
        if self._indexed or self.count < 2:
            return
        self._write()
        rows: list[tuple[int, int]] = []
        try:
            self._db.execute("CREATE INDEX by_name ON listed (name)")
            if self._db.execute(
                "SELECT 1 FROM listed GROUP BY name HAVING count(*) > 1 LIMIT 1"
            ).fetchone():
                rows = self._db.execute(
                    "DELETE FROM listed WHERE rowid NOT IN"
                    " (SELECT min(rowid) FROM listed GROUP BY name) RETURNING size, scopes"
                ).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error
        self._indexed = True
        self._take_off(rows)

    def correct(self, name: str, found: Amount, scopes: Scopes) -> None:
        """Let a name count with what was found, whatever the list has said of it."""
        self.count_once()
        self._write()
        try:
            rows = self._db.execute(
                "DELETE FROM listed WHERE name = ? RETURNING size, scopes", (name,)
            ).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error
        self._take_off(rows)
        if found:
            self.add(name, found.bytes, scopes)

    def _take_off(self, rows: Iterable[tuple[int, int]]) -> None:
        for size, number in rows:
            self._sums[number][0] -= size
            self._sums[number][1] -= 1
            self.count -= 1

    def totals(self) -> Iterator[tuple[Scopes, Amount]]:
        """Yield what the folder holds of each combination of scopes."""
        for scopes, (size, objects) in zip(self._known, self._sums, strict=True):
            yield scopes, Amount(size, objects)

    def by_scope(self) -> Mapping[str, Amount]:
        """Return what the folder holds of each scope."""
        found: dict[str, Amount] = {}
        for scopes, amount in self.totals():
            for scope in scopes:
                found[scope] = found.get(scope, NOTHING) + amount
        return found

    def _number(self, scopes: Scopes) -> int:
        number = self._numbers.get(scopes)
        if number is None:
            number = self._numbers[scopes] = len(self._known)
            self._known.append(scopes)
            self._sums.append([0, 0])
        return number

    def _write(self) -> None:
        if not self._new:
            return
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO listed VALUES (?, ?, ?)", self._new)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(error) from error
        self._new.clear()


def _translated(error: sqlite3.Error) -> LedgerError:
    return LedgerError(f"a temporary file for what is counted: {error}")
