"""What places at services that know files and folders by ids have in common: see `entry_items`."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic

from ..names import check_folder, check_path
from .base import Backend, ItemInfo
from .entry_folders import Id
from .entry_items import FRESH, E, EntryItems
from .errors import (
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    ObjectExists,
    ObjectNotFound,
)
from .spooled_listing import Listed, one_of_each


class EntryPlace(Backend, Generic[Id, E]):
    """A folder of an account.

    Args:
        label: what messages call the place.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._items: EntryItems[Id, E] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._label!r})"

    @property
    def _opened(self) -> EntryItems[Id, E]:
        if self._items is None:
            raise BackendMustBeOpen(f"{self._label} is not open")
        return self._items

    def _must_be_closed(self) -> None:
        if self._items is not None:
            raise BackendMustNotBeOpen(f"{self._label} is open")

    # -- folders

    def claim_folders(self, claiming: Callable[[str], AbstractContextManager[None]]) -> None:
        """Have folders made within `claiming(parent)`, which lets one gateway at a time do that in
        a folder; until the place is closed."""
        self._opened.folder_ids.claiming = claiming

    def mkdir(self, name: str) -> None:
        check_folder(name)
        self._opened.folder_ids.make(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        """Make several folders, those in one folder a few at a time."""
        self._opened.folder_ids.make_several([check_folder(name) for name in names])

    def _empty_folder(self, name: str) -> Sequence[Id]:
        """Return the ids of a folder that is to be removed.

        Raises:
            ObjectNotFound: there is none.
            BackendError: it is an item, or not empty.
        """
        items = self._opened
        found = items.entries(name)
        if not found:
            raise ObjectNotFound(name)
        if not found[0].folder:
            raise BackendError(f"{name}: is an item, not a folder")
        ids = [items.id_of(entry) for entry in found if entry.folder]
        if next(items.within(name, ids), None) is not None:
            raise BackendError(f"{name}: is not empty")
        items.folder_ids.forget(name)
        items.note(name, None)
        return ids

    # -- listing

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        return self._list(self._opened, name)

    def _list(self, items: EntryItems[Id, E], name: str) -> Iterator[ItemInfo]:
        asked_at, folders = time.monotonic(), items.folder_ids
        ids = folders.find(name)
        confirming = None if ids is None else items.confirm_beside(name)
        entries = iter(()) if ids is None else self._noting(items, name, ids)
        first = next(entries, None)
        items.note_empty(name, empty=first is None)
        if first is None and confirming is not None:
            confirming.result()
        if first is None and (ids is None or folders.age(name) > FRESH):
            # Nothing in it; or another gateway has removed it and made it again.
            if confirming is None:
                folders.confirm(name)
            again = folders.find(name, seen_after=asked_at)
            if again is None:
                raise ObjectNotFound(name)
            if again != ids:
                entries = self._noting(items, name, again)
                first = next(entries, None)
        if first is not None:
            yield from one_of_each(_chained(first, entries))

    def _noting(self, items: EntryItems[Id, E], name: str, ids: tuple[Id, ...]) -> Iterator[Listed]:
        """Yield what is in a folder, and keep what it tells of items and folders."""
        children: dict[str, list[E]] = {}
        count = 0
        fetched = items.ahead.take(name)
        alone = fetched is None
        for entry in items.within(name or "/", ids) if alone else fetched or ():
            count += 1
            segment = items.segment_of(entry)
            if segment is None:
                continue
            if entry.folder:
                children.setdefault(segment, []).append(entry)
            else:
                items.note_listed(f"{name}/{segment}" if name else segment, entry)
            yield Listed(items.rank(entry), info_of(segment, entry))
        ranked = {
            segment: [items.id_of(each) for each in sorted(entries, key=items.rank)]
            for segment, entries in children.items()
        }
        items.folder_ids.note_children(name, ranked)
        items.ahead.shown(name, ranked)
        if alone:
            items.ahead.listed(name, count)

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        items = self._opened
        if not name:
            return ItemInfo("", exists=True, size=0, directory=True)
        found = items.entries(name)
        if not found:
            return ItemInfo(name, exists=False, size=0, directory=False)
        return info_of(name, found[0])

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=False)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=True)

    def _move(self, name: str, new_name: str, *, if_absent: bool) -> None:
        """The service copies, then the old entry is deleted: the new one has an id that nobody
        knows by the old name."""
        check_path(name)
        check_path(new_name)
        found = self._opened.entries(name)
        if not found or found[0].folder:
            raise ObjectNotFound(name)
        if name == new_name:
            if if_absent:
                raise ObjectExists(f"{new_name} exists")
            return
        self._move_entries(name, found, new_name, if_absent=if_absent)

    @abstractmethod
    def _move_entries(
        self, name: str, found: Sequence[E], new_name: str, *, if_absent: bool
    ) -> None:
        """Move an item, of which `found` are the entries."""

    def copy(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        items = self._opened
        source = items.find(name)
        if name != new_name:
            items.copy(source, new_name, if_absent=False)


def info_of(name: str, entry: E) -> ItemInfo:
    """Return what is told of an entry."""
    if entry.folder:
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=entry.size, directory=False, mtime=entry.changed)


def _chained(first: Listed, rest: Iterator[Listed]) -> Iterator[Listed]:
    yield first
    yield from rest
