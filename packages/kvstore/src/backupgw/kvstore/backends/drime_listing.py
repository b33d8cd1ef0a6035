"""Reading a folder of Drime's to its real end.

Drime lists by page number, tells nothing of how many pages there are, and in large folders repeats
the last one for ever. While entries come and go, numbers alone would leave some out. So each page
begins a little before the end of the one before it, and what follows the last entry that is known
is what is new.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from . import drime_names
from .base import ItemInfo
from .drime_calls import PER_PAGE, Calls
from .drime_entry import Entry, Page
from .errors import BackendError

_REMEMBERED = 3 * PER_PAGE
"""Entries before the end that are known again: as many may vanish between two pages."""

_STUCK = 50
"""Pages in a row that lead nowhere before a listing gives up."""

_HANDED_OUT = 500


def all_entries(
    calls: Calls, what: str, parents: Sequence[int], *, folders: bool = False
) -> Iterator[Entry]:
    """Yield what lies in the folders; an entry may come twice, and none that stays is left out.

    Args:
        what: for messages.
        folders: only folders.
    """

    def page(number: int, size: int) -> Page:
        return calls.repeated(lambda: calls.page(what, parents, number, size, folders=folders))

    found = page(1, PER_PAGE)
    yield from found.entries
    if not found.last:
        yield from _rest(what, page, found)


def _rest(what: str, page: Callable[[int, int], Page], found: Page) -> Iterator[Entry]:
    most = found.size
    recent: deque[int] = deque((entry.id for entry in found.entries), _REMEMBERED)
    at = len(found.entries)
    """How many entries lie before what is still to come, as far as is known."""
    idle = 0
    while not found.last:
        number, size = _window(at, most)
        found = page(number, size)
        if found.size < size:  # less in a page than was asked for
            most, found = found.size, found._replace(last=False)
            continue
        start = (number - 1) * size
        known = set(recent)
        ids = [entry.id for entry in found.entries]
        anchor = next((i for i in reversed(range(len(ids))) if ids[i] in known), None)
        if anchor is None and start > 0:
            at = max(start, 1)  # more vanished than the pages overlap: go back
            found = found._replace(last=False)
            new: list[Entry] = []
        else:
            new = found.entries[0 if anchor is None else anchor + 1 :]
            at = start + len(ids)
        recent.extend(entry.id for entry in new)
        yield from new
        if not new and anchor is not None and len(ids) < size:
            return
        idle = 0 if new else idle + 1
        if idle > _STUCK:
            raise BackendError(f"{what}: it changes faster than it can be listed", retryable=True)


def _window(at: int, most: int) -> tuple[int, int]:
    """Return the page number and size that show the most beyond `at` entries, and at least the one
    before."""
    before = max(at - 1, 0)
    size = max(range(most, most // 2, -1), key=lambda size: (before // size + 1) * size)
    return before // size + 1, size


def listed(entries: Iterator[Entry], shown: Callable[[str], bool]) -> Iterator[ItemInfo]:
    """Yield one record for each name, the one of the lowest id where there are several.

    More than a page of them is gathered in a temporary database first, so that it needs no memory
    and no page is fetched long after the one before it.

    Args:
        shown: whether a segment is anybody's to see.
    """
    gathered: dict[str, Entry] = {}
    for entry in entries:
        segment = drime_names.read(entry.name)
        if segment is None or not shown(segment):
            continue
        if (other := gathered.get(segment)) is None or entry.id < other.id:
            gathered[segment] = entry
        if len(gathered) > PER_PAGE:
            yield from _spooled(gathered, entries, shown)
            return
    for segment, entry in gathered.items():
        yield info_of(segment, entry)


def info_of(name: str, entry: Entry) -> ItemInfo:
    """Return what is told of an entry."""
    if entry.folder:
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=entry.size, directory=False, mtime=entry.changed)


def _spooled(
    gathered: dict[str, Entry], rest: Iterator[Entry], shown: Callable[[str], bool]
) -> Iterator[ItemInfo]:
    # Whoever reads a listing may hand it from thread to thread.
    spool = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        spool.execute("PRAGMA journal_mode = OFF")
        spool.execute("PRAGMA synchronous = OFF")
        spool.execute(
            "CREATE TABLE found (name TEXT PRIMARY KEY, id INTEGER, folder INTEGER, size INTEGER,"
            " changed REAL) WITHOUT ROWID"
        )
        spool.execute("BEGIN")
        _keep(spool, gathered.items())
        gathered.clear()
        batch: list[tuple[str, Entry]] = []
        for entry in rest:
            segment = drime_names.read(entry.name)
            if segment is not None and shown(segment):
                batch.append((segment, entry))
            if len(batch) == PER_PAGE:
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


def _keep(spool: sqlite3.Connection, entries: Iterable[tuple[str, Entry]]) -> None:
    rows = [
        (name, entry.id, entry.folder, 0 if entry.folder else entry.size, entry.changed)
        for name, entry in entries
    ]
    spool.executemany(
        "INSERT INTO found VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET id = excluded.id, folder = excluded.folder, size = excluded.size,"
        " changed = excluded.changed"
        " WHERE excluded.id < id",
        rows,
    )
