"""Listing folders that lie side by side with one request for many.

A repository has 256 folders of packs, and whoever lists its packs lists one after the other. Drime
and Google Drive list several folders at once, so when the folder around them was just listed, the
next ones are fetched together. Each is handed out once, and not after some seconds or a change of
our own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Generic, Protocol, TypeVar

from .errors import ObjectNotFound

_SIBLINGS = 8
"""Folders side by side from which on it is worth while."""

_ENTRIES = 4000
"""Entries that a fetch is to bring at most, going by the folder that was listed before."""

_VALID = 5.0
"""Seconds for which what was fetched is of use."""

Id = TypeVar("Id")
Id_co = TypeVar("Id_co", covariant=True)


class Child(Protocol[Id_co]):
    """An entry that knows the id of its folder."""

    @property
    def parent(self) -> Id_co: ...


E = TypeVar("E", bound=Child[object])


class Ahead(Generic[Id, E]):
    """What was fetched before it was asked for.

    Args:
        entries: lists several folders: their ids, after what it is for.
        at_once: folders that one request lists at most.
        requests: how many are made at the same time.
    """

    def __init__(
        self,
        entries: Callable[[str, Sequence[Id]], Iterator[E]],
        *,
        at_once: int,
        requests: int = 1,
    ) -> None:
        self._entries = entries
        self._at_once = at_once
        self._requests = requests
        self._lock = threading.Lock()
        self._row: list[tuple[str, tuple[Id, ...]]] = []
        """Folders side by side that were shown last and not listed since, in their order."""
        self._seen = 0.0
        self._around = ""
        """The folder around the row."""
        self._typical: int | None = None
        """Entries in each folder of the row, as far as was seen; None: none of them was listed."""
        self._fetched: dict[str, list[E]] = {}
        self._at = 0.0
        self._changing: list[set[str]] = []
        """For each fetch under way, the folders that were changed since it began."""

    def shown(self, folder: str, children: Mapping[str, Sequence[Id]]) -> None:
        """Note that a listing of `folder` has shown these folders, by their names."""
        if len(children) < _SIBLINGS:
            return
        base = f"{folder}/" if folder else ""
        with self._lock:
            # By name: long listings are handed out so, whatever the service's order was.
            self._row = [(base + name, tuple(ids)) for name, ids in sorted(children.items())]
            if folder != self._around:
                self._around, self._typical = folder, None
            self._seen = time.monotonic()
            self._fetched.clear()

    def changed(self, folder: str) -> None:
        """Note that we have changed something in a folder."""
        with self._lock:
            self._fetched.pop(folder, None)
            for changed in self._changing:
                changed.add(folder)

    def listed(self, folder: str, count: int) -> None:
        """Note how many entries a folder had that was listed by itself."""
        with self._lock:
            if self._position(folder) is not None:
                self._typical = max(self._typical or 0, count)
                self._seen = time.monotonic()

    def take(self, folder: str) -> list[E] | None:
        """Return what lies in a folder if that is known, or worth fetching with its neighbours;
        None where it is to be listed by itself."""
        with self._lock:
            now = time.monotonic()
            if now - self._at < _VALID and (kept := self._fetched.pop(folder, None)) is not None:
                return kept
            position = self._position(folder)
            if position is None or now - self._seen > _VALID or self._typical is None:
                return None  # the first tells how many there are in each
            row = self._next(position, self._typical)
            if len(row) < 2:
                return None
            self._fetched.clear()
            changed: set[str] = set()
            self._changing.append(changed)
        try:
            found = self._fetch(folder, row)
        except ObjectNotFound:
            found = None  # one of them is gone
        finally:
            with self._lock:
                self._changing = [each for each in self._changing if each is not changed]
        with self._lock:
            if found is None:
                self._row, self._around = [], ""
                return None
            mine = found.pop(folder)
            self._fetched = {path: each for path, each in found.items() if path not in changed}
            self._at = time.monotonic()
            self._seen = self._at
            self._typical = max(self._typical or 0, len(mine))
        return mine

    def _next(self, position: int, typical: int) -> list[tuple[str, tuple[Id, ...]]]:
        """Return the folders that are worth fetching together, from a position on."""
        row, ids, most = [], 0, self._at_once * self._requests
        for each in self._row[position : position + min(most, _ENTRIES // max(1, typical))]:
            ids += len(each[1])
            if ids > most:
                break
            row.append(each)
        return row

    def _position(self, folder: str) -> int | None:
        return next((n for n, (path, _) in enumerate(self._row) if path == folder), None)

    def _fetch(
        self, what: str, row: Sequence[tuple[str, tuple[Id, ...]]]
    ) -> dict[str, list[E]] | None:
        """Return what lies in each folder; None where there is too much for this."""
        owner: dict[object, str] = {id_: path for path, ids in row for id_ in ids}
        found: dict[str, list[E]] = {path: [] for path, _ in row}
        ids = [id_ for _, ids in row for id_ in ids]
        shares = [ids[at : at + self._at_once] for at in range(0, len(ids), self._at_once)]
        if len(shares) == 1:
            taken = [self._share(what, ids, 2 * _ENTRIES)]
        else:
            with ThreadPoolExecutor(len(shares), thread_name_prefix="backupgw-ahead") as pool:
                most = 2 * _ENTRIES // len(shares)
                taken = [*pool.map(lambda share: self._share(what, share, most), shares)]
        for entries in taken:
            if entries is None:
                return None
            for entry in entries:
                found[owner[entry.parent]].append(entry)
        return found

    def _share(self, what: str, ids: Sequence[Id], most: int) -> list[E] | None:
        """Return what lies in folders; None where there is more."""
        entries = [*islice(self._entries(what, ids), most + 1)]
        return entries if len(entries) <= most else None
