"""One list of a folder that several places hold.

The entries come from one place that holds the folder as it should. What that place has missed in
it is left out and taken from the others at the end. Should the place fail in the middle, the next
one goes on, without what was told already. Memory does not grow with the number of entries: names
that have to be remembered lie in unnamed temporary files.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing

from ..backends.base import ItemInfo
from ..backends.errors import BackendError, ObjectNotFound
from ..names import joined
from .mirror_places import Place
from .mirror_reads import Reads

logger = logging.getLogger(__name__)

_READ = 1 << 16


def entries(reads: Reads, folder: str) -> Iterator[ItemInfo]:
    """Yield the entries of a folder, each once.

    Raises:
        ObjectNotFound: by the first `next`: there is no such folder.
        BackendError: no place that is left can go on.
    """
    told = _Told()
    seen: _Names | None = None
    failure: BackendError | None = None
    try:
        for place in _in_order(reads, folder):
            missed = _missed_in(reads, place, folder)
            try:
                for info in place.batches(folder):
                    if (missed and info.name in missed) or (seen and info.name in seen):
                        continue
                    told.add(info.name)
                    yield info
                if missed:
                    yield from _missed_entries(reads, folder, missed, seen)
            except ObjectNotFound as error:
                failure = failure or error
            except BackendError as error:
                logger.warning("list of %r: %s failed: %s", folder, place, error)
                failure = error
                if seen is not None:
                    seen.close()
                seen = told.names(error)
            else:
                return
            finally:
                if missed is not None:
                    missed.close()
        raise failure or reads.nowhere(folder)
    finally:
        told.close()
        if seen is not None:
            seen.close()


def _in_order(reads: Reads, folder: str) -> list[Place]:
    """Return the places to list from, those that have missed nothing there first."""
    usable = [place for place in reads.places if place.usable and place.trusted]
    return sorted(
        usable,
        key=lambda place: (
            reads.journal.has_missed_in(place.label, folder)
            or (folder != "" and reads.journal.has_missed(place.label, folder))
        ),
    )


def _missed_in(reads: Reads, place: Place, folder: str) -> _Names | None:
    """Return the names that a place missed in a folder, as they are now; None for none."""
    if not reads.journal.has_missed_in(place.label, folder):
        return None
    return _Names(reads.journal.names_missed_in(place.label, folder))


def _missed_entries(
    reads: Reads, folder: str, missed: _Names, seen: _Names | None
) -> Iterator[ItemInfo]:
    for name in missed:
        if seen is None or name not in seen:
            info = reads.info(joined(folder, name))
            if info.exists:
                yield info._replace(name=name)


class _Names:
    """A set of names in a temporary file."""

    def __init__(self, names: Iterable[str]) -> None:
        self._db = sqlite3.connect("", check_same_thread=False)  # "" is a private file
        self._db.execute("CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID")
        self._db.executemany("INSERT OR IGNORE INTO names VALUES (?)", ((n,) for n in names))

    def __contains__(self, name: str) -> bool:
        query = "SELECT 1 FROM names WHERE name = ?"
        return self._db.execute(query, (name,)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        after = ""
        while True:
            rows = self._db.execute(
                "SELECT name FROM names WHERE name > ? ORDER BY name LIMIT 1000", (after,)
            ).fetchall()
            for (name,) in rows:
                yield name
            if not rows:
                return
            after = rows[-1][0]

    def close(self) -> None:
        self._db.close()


class _Told:
    """The names that a list has told so far. Only if the place fails are they looked at."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1 << 18)  # noqa: SIM115 - see close
        self._broken: OSError | None = None

    def add(self, name: str) -> None:
        if self._broken is None:
            try:
                self._file.write(name.encode() + b"\0")
            except OSError as error:
                self._broken = error  # the list goes on, but no other place could take over

    def names(self, failure: BackendError) -> _Names:
        """Return what was told. Raises `failure` where that was lost."""
        if self._broken is not None:
            logger.warning("a list cannot go on elsewhere: %s", self._broken)
            raise failure
        self._file.seek(0)
        names = _Names(self._split())
        self._file.seek(0, 2)
        return names

    def _split(self) -> Iterator[str]:
        rest = b""
        while block := self._file.read(_READ):
            *whole, rest = (rest + block).split(b"\0")
            for name in whole:
                yield name.decode()

    def close(self) -> None:
        with closing(self._file):
            pass
