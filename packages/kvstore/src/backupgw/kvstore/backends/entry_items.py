"""Which entry an item is, at services that take any number of entries of one name.

Of several one counts, for every reader and every gateway. Which it is, is kept in memory, so that
reading an item again needs no search. An id never comes to mean another item: moving makes a new
one. What lies in a service's trash can still be read by its id, so with a trash nothing is kept.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from .entry_folders import FolderIds, Id
from .errors import ObjectNotFound
from .listing_ahead import Ahead

KNOWN = 50_000
"""Items whose entries are kept in memory."""

FRESH = 2.0
"""Seconds for which a folder counts as just seen."""


class Entry(Protocol):
    """What a service tells of a file or folder: the id of its folder, its size in bytes, and when
    it changed, in seconds since the epoch."""

    @property
    def parent(self) -> object: ...
    @property
    def folder(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def changed(self) -> float: ...


E = TypeVar("E", bound=Entry)


class EntryItems(ABC, Generic[Id, E]):
    """The items of one opening of a place.

    Args:
        folders: the place's.
        ahead: what lists folders side by side.
        keeps: whether entries are kept in memory.
    """

    def __init__(self, folders: FolderIds[Id], ahead: Ahead[Id, E], *, keeps: bool) -> None:
        self.folder_ids = folders
        self.ahead = ahead
        folders.on_made = ahead.changed
        self._keeps = keeps
        self._known: OrderedDict[str, E] = OrderedDict()
        self._lock = threading.Lock()

    # -- what a service adds

    @abstractmethod
    def _named(self, what: str, parents: Sequence[Id], segment: str) -> list[E]:
        """Return the entries of a name in folders, the one that counts first."""

    @abstractmethod
    def rank(self, entry: E) -> int | str:
        """Return by what of several entries of a name the one with the lowest counts."""

    @abstractmethod
    def id_of(self, entry: E) -> Id:
        """Return an entry's id."""

    @abstractmethod
    def segment_of(self, entry: E) -> str | None:
        """Return by what segment of a name an entry is known, None where it is nobody's."""

    @abstractmethod
    def within(self, what: str, folders: Sequence[Id]) -> Iterator[E]:
        """List what lies in folders."""

    @abstractmethod
    def copy(self, source: E, name: str, *, if_absent: bool) -> E:
        """Make an item of a copy of an entry, by the service itself; return the new entry.

        Raises:
            ObjectExists: (if_absent) there is an item.
            ObjectNotFound: the entry is gone.
        """

    @abstractmethod
    def _kept(self, entry: E) -> E:
        """Return an entry without what is not needed of one that is known: it would take most of
        the memory."""

    # -- what is known

    def known(self, name: str) -> E | None:
        """Return the entry that an item had when it was seen last, None where it is not kept."""
        with self._lock:
            entry = self._known.get(name)
            if entry is not None:
                self._known.move_to_end(name)
            return entry

    def note(self, name: str, entry: E | None) -> None:
        """Note what an item's entry is, or that it has none."""
        self.ahead.changed(name.rpartition("/")[0])
        with self._lock:
            if entry is None or not self._keeps:
                self._known.pop(name, None)
                return
            self._known[name] = self._kept(entry)
            self._known.move_to_end(name)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def note_listed(self, name: str, entry: E) -> None:
        """Note an entry that a listing has shown; of several the one that counts."""
        with self._lock:
            known = self._known.get(name)
        if known is None or self.rank(entry) < self.rank(known):  # type: ignore[operator]  # alike
            self.note(name, entry)

    def note_empty(self, folder: str, *, empty: bool) -> None:
        """Note whether a listing of a folder has shown anything."""

    def confirm_beside(self, folder: str) -> Future[None] | None:  # noqa: ARG002 - of those who can
        """Begin `FolderIds.confirm` for a folder that is likely to be empty, beside the listing
        that will tell; None where it is better asked afterwards."""
        return None

    # -- finding

    def entries(self, name: str) -> list[E]:
        """Return what there is of a name, the one that counts first: items and folders."""
        parent, _, segment = name.rpartition("/")
        asked_at = time.monotonic()
        folders = self.folder_ids
        parents = folders.find(parent)
        found = [] if parents is None else self._named(name, parents, segment)
        if not found and parents is not None and folders.age(parent) > FRESH:
            # Another gateway may have removed the folder and made it again.
            again = folders.find(parent, seen_after=asked_at)
            if again is not None and again != parents:
                found = self._named(name, again, segment)
        self.note(name, found[0] if found and not found[0].folder else None)
        return found

    def find(self, name: str) -> E:
        """Return the entry of an item. Raises ObjectNotFound; a folder is not an item."""
        found = self.entries(name)
        if not found or found[0].folder:
            raise ObjectNotFound(name)
        return found[0]

    # -- folders of items

    def folder_of(self, name: str) -> Id:
        """Return the id of the folder that a new item belongs into, made where there is none."""
        return self.folder_ids.make(name.rpartition("/")[0])[0]

    def lost_folder(self, name: str) -> None:
        """Forget the folders of an item, one of which the service says is gone."""
        self.folder_ids.forget(name.partition("/")[0])
