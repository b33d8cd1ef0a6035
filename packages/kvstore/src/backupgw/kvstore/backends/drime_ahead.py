"""Listing folders that lie side by side with one request for many.

A repository has 256 folders of packs, and whoever lists its packs lists one after the other. Drime
lists several folders at once, so when the folder around them was just listed, the next ones are
fetched together. Each is handed out once, and not after some seconds or a change of our own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from .drime_calls import Calls
from .drime_entry import Entry
from .drime_listing import all_entries

_SIBLINGS = 8
"""Folders side by side from which on it is worth while."""

_AT_ONCE = 64
"""Folders that are fetched together at most: their ids are in the request's URL."""

_ENTRIES = 4000
"""Entries that a fetch is to bring at most, going by the folder that was listed before."""

_VALID = 5.0
"""Seconds for which what was fetched is of use."""


class Ahead:
    """What was fetched before it was asked for."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._row: list[tuple[str, tuple[int, ...]]] = []
        """Folders side by side that were shown last and not listed since, in their order."""
        self._seen = 0.0
        self._typical = 0
        self._fetched: dict[str, list[Entry]] = {}
        self._at = 0.0

    def shown(self, folder: str, children: dict[str, list[int]]) -> None:
        """Note that a listing of `folder` has shown these folders."""
        if len(children) < _SIBLINGS:
            return
        base = f"{folder}/" if folder else ""
        with self._lock:
            self._row = [(base + name, tuple(sorted(ids))) for name, ids in children.items()]
            self._seen, self._typical = time.monotonic(), 0
            self._fetched.clear()

    def changed(self, folder: str) -> None:
        """Note that we have changed something in a folder."""
        with self._lock:
            self._fetched.pop(folder, None)

    def listed(self, folder: str, count: int) -> None:
        """Note how many entries a folder had that was listed by itself."""
        with self._lock:
            if self._position(folder) is not None:
                self._typical = max(self._typical, count)
                self._seen = time.monotonic()

    def take(self, folder: str) -> list[Entry] | None:
        """Return what lies in a folder if that is known, or worth fetching with its neighbours;
        None where it is to be listed by itself."""
        with self._lock:
            now = time.monotonic()
            if now - self._at < _VALID and (kept := self._fetched.pop(folder, None)) is not None:
                return kept
            position = self._position(folder)
            if position is None or now - self._seen > _VALID or position == 0:
                return None  # the first tells how many there are in each
            count = min(_AT_ONCE, _ENTRIES // max(1, self._typical))
            row = self._row[position : position + count]
            if len(row) < 2:
                return None
            self._fetched.clear()
        found = self._fetch(folder, row)
        with self._lock:
            if found is None:
                self._row = []  # too many in them for this
                return None
            mine = found.pop(folder)
            self._fetched, self._at = found, time.monotonic()
            self._seen = self._at
            self._typical = max(self._typical, len(mine))
        return mine

    def _position(self, folder: str) -> int | None:
        return next((n for n, (path, _) in enumerate(self._row) if path == folder), None)

    def _fetch(
        self, what: str, row: Sequence[tuple[str, tuple[int, ...]]]
    ) -> dict[str, list[Entry]] | None:
        owner = {id_: path for path, ids in row for id_ in ids}
        found: dict[str, list[Entry]] = {path: [] for path, _ in row}
        for count, entry in enumerate(all_entries(self._calls, what, [*owner])):
            if count > 2 * _ENTRIES:
                return None
            found[owner[entry.parent]].append(entry)
        return found
