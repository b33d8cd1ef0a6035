"""Going through all folders of several places at once, with the entries side by side.

Each folder's entries lie in a temporary file meanwhile, so memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ..backends.errors import ObjectNotFound
from ..names import joined
from .mirror_places import Place

_AT_ONCE = 500


def walk(places: Sequence[Place], roots: Sequence[str] = ("",)) -> Iterator[Folder]:
    """Yield every folder that any of the places has, outer ones first.

    A folder that the caller made at one place meanwhile is not listed again.
    """
    for root in roots:
        with Folder(places, root) as folder:
            yield folder
            for name in folder.folders():
                yield from walk(places, [name])


class Folder:
    """The entries of a folder at several places."""

    class Entry(NamedTuple):
        """What one place has."""

        size: int
        directory: bool

    def __init__(self, places: Sequence[Place], name: str) -> None:
        self.name = name
        self._places = places
        self._db = sqlite3.connect("", check_same_thread=False)  # "" is a private temporary file

    def __enter__(self) -> Folder:
        self._db.execute(
            "CREATE TABLE entries (name TEXT, place INTEGER, size INTEGER, directory INTEGER, "
            "PRIMARY KEY (name, place)) WITHOUT ROWID"
        )
        for number, place in enumerate(self._places):
            entries = place.batches(self.name)
            try:
                while batch := [*islice(entries, _AT_ONCE)]:
                    self._db.executemany(
                        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                        [(info.name, number, info.size, info.directory) for info in batch],
                    )
            except ObjectNotFound:
                continue  # this place has not got the folder
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def entries(self) -> Iterator[tuple[str, dict[Place, Folder.Entry]]]:
        """Yield (full name, what each place has) in the order of the names."""
        after = ""
        while True:
            rows = self._db.execute(
                "SELECT name, place, size, directory FROM entries WHERE name IN (SELECT DISTINCT "
                "name FROM entries WHERE name > ? ORDER BY name LIMIT ?) ORDER BY name",
                (after, _AT_ONCE),
            ).fetchall()
            if not rows:
                return
            found: dict[str, dict[Place, Folder.Entry]] = {}
            for name, number, size, directory in rows:
                entry = Folder.Entry(size, bool(directory))
                found.setdefault(name, {})[self._places[number]] = entry
            for name, held in found.items():
                yield joined(self.name, name), held
            after = rows[-1][0]

    def folders(self) -> Iterator[str]:
        """Yield the full names of the folders in it."""
        for name, held in self.entries():
            if any(entry.directory for entry in held.values()):
                yield name
