"""Listing a folder of a place that may have several entries of one name: one of them counts.

More than a page of them is gathered in a temporary database first, so that it needs no memory and
no page is fetched long after the one before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .base import ItemInfo
from .errors import BackendError

_HELD = 100
_BATCH = 100
_HANDED_OUT = 500


class Listed(NamedTuple):
    """An entry under a name of ours; of several of one name the one with the lowest rank counts.

    Ranks of one listing are all numbers, or all text.
    """

    rank: int | str
    info: ItemInfo


def one_of_each(entries: Iterator[Listed]) -> Iterator[ItemInfo]:
    """Yield one record for each name.

    Raises:
        BackendError: this machine's temporary folder has no room for a long listing.
    """
    gathered: dict[str, Listed] = {}
    for entry in entries:
        other = gathered.get(entry.info.name)
        if other is None or _comes_before(entry, other):
            gathered[entry.info.name] = entry
        if len(gathered) > _HELD:
            yield from _spooled(gathered, entries)
            return
    for entry in gathered.values():
        yield entry.info


def _comes_before(entry: Listed, other: Listed) -> bool:
    return entry.rank < other.rank  # type: ignore[operator]  # both numbers, or both text


def _spooled(gathered: dict[str, Listed], rest: Iterator[Listed]) -> Iterator[ItemInfo]:
    # Whoever reads a listing may hand it from thread to thread.
    spool = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        spool.execute("PRAGMA journal_mode = OFF")
        spool.execute("PRAGMA synchronous = OFF")
        spool.execute(
            "CREATE TABLE found (name TEXT PRIMARY KEY, rank, folder INTEGER, size INTEGER,"
            " changed REAL) WITHOUT ROWID"
        )
        spool.execute("BEGIN")
        _keep(spool, gathered.values())
        gathered.clear()
        batch: list[Listed] = []
        for entry in rest:
            batch.append(entry)
            if len(batch) == _BATCH:
                _keep(spool, batch)
                batch = []
        _keep(spool, batch)
        rows = spool.execute("SELECT name, folder, size, changed FROM found")
        while some := rows.fetchmany(_HANDED_OUT):
            for name, folder, size, changed in some:
                yield ItemInfo(name, True, size, bool(folder), mtime=changed)
    except sqlite3.Error as error:
        raise BackendError(
            f"no room for a listing in this machine's temporary folder: {error}"
        ) from error
    finally:
        spool.close()


def _keep(spool: sqlite3.Connection, entries: Iterable[Listed]) -> None:
    rows = [
        (entry.info.name, entry.rank, entry.info.directory, entry.info.size, entry.info.mtime)
        for entry in entries
    ]
    spool.executemany(
        "INSERT INTO found VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET rank = excluded.rank, folder = excluded.folder, size = excluded.size,"
        " changed = excluded.changed"
        " WHERE excluded.rank < rank",
        rows,
    )
