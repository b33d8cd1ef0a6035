"""Folders where a place has items alone (S3 and B2, and their like): marked ones.

There a folder is there when an item lies below it. Each folder that is made or written to gets a
mark, once: an empty item of the kernel's own name. So a folder does not vanish with its last item,
and what was found out about a folder is not asked again.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..names import RESERVED_PREFIX, is_reserved, joined
from .errors import BackendError, ObjectNotFound

MARK = f"{RESERVED_PREFIX}-folder"
_KNOWN = 10_000
_AT_ONCE = 8
_MANY = 8


class Folders(ABC):
    """What a backend asks about folders. The empty name is the root."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a folder."""

    @abstractmethod
    def make(self, names: Iterable[str]) -> None:
        """Make folders with their parents. Raises BackendError where an item is in the way."""

    @abstractmethod
    def before_writing(self, name: str) -> None:
        """Get the folder of an item ready. Raises BackendError when `name` is a folder, or lies
        beneath an item."""

    @abstractmethod
    def before_removing(self, name: str) -> None:
        """The item will be gone: its folder is not to go with it."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an empty one. Raises ObjectNotFound, BackendError when it is not empty."""


class Keys(ABC):
    """What marks stand on."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such an item."""

    @abstractmethod
    def below(self, name: str) -> Iterator[tuple[str, bool]]:
        """Yield (segment, is it a folder) of what a folder holds, the kernel's own included.
        Nothing, or ObjectNotFound, where there is none."""

    @abstractmethod
    def put(self, name: str) -> None:
        """Store an empty item."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove an item for good."""


class MarkedFolders(Folders):
    """Those of a place that has items alone.

    Args:
        keys: what they stand on.
        asks: whether each write asks if its name is a folder's; else only what is known counts.
    """

    def __init__(self, keys: Keys, *, asks: bool = True) -> None:
        self._keys = keys
        self._asks = asks
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def exists(self, name: str) -> bool:
        if self._keys.has(_mark(name)):
            return True
        try:
            return next(self._keys.below(name), None) is not None
        except ObjectNotFound:
            return False

    def make(self, names: Iterable[str]) -> None:
        beneath: dict[str, list[str]] = {}
        for name in names:
            if name:
                beneath.setdefault(name.rpartition("/")[0], []).append(name)
        for parent, wanted in beneath.items():
            self._make(parent)
            if len(wanted) < _MANY:
                for name in wanted:
                    self._make(name)
            else:
                self._make_many(parent, wanted)

    def _make_many(self, parent: str, names: Sequence[str]) -> None:
        """Make folders beneath one that exists: a list tells what is there already."""
        items: set[str] = set()
        folders: set[str] = set()
        for each, folder in self._keys.below(parent):
            (folders if folder else items).add(joined(parent, each))
        if clash := items.difference(folders).intersection(names):
            raise BackendError(f"{min(clash)}: is an item, not a folder")
        missing = [name for name in names if name not in folders and not self.knows(name)]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="backupgw-mkdir") as workers:
            for done in [workers.submit(self._keys.put, _mark(name)) for name in missing]:
                done.result()
        for name in missing:
            self._note(name)

    def forget_all(self) -> None:
        """Others may have done anything meanwhile."""
        with self._lock:
            self._known.clear()

    def mark_root(self) -> None:
        """Make the place itself one."""
        self._keys.put(MARK)

    def _make(self, name: str) -> None:
        if not name or self.knows(name):
            return
        if not self._keys.has(_mark(name)):
            self._make(name.rpartition("/")[0])
            if self._keys.has(name):
                raise BackendError(f"{name}: is an item, not a folder")
            self._keys.put(_mark(name))
        self._note(name)

    def _note(self, name: str) -> None:
        with self._lock:
            self._known[name] = None
            self._known.move_to_end(name)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def knows(self, name: str) -> bool:
        """Whether it is known to be a folder with a mark; the root always is one."""
        with self._lock:
            return not name or name in self._known

    def before_writing(self, name: str) -> None:
        self._make(name.rpartition("/")[0])
        if self._keys.has(_mark(name)) if self._asks else self.knows(name):
            raise BackendError(f"{name}: is a folder")

    def before_removing(self, name: str) -> None:
        if self._keys.has(name):
            self._make(name.rpartition("/")[0])

    def forget(self, name: str) -> None:
        """Somebody has removed it."""
        with self._lock:
            self._known.pop(name, None)

    def remove(self, name: str) -> None:
        marked = self._keys.has(_mark(name))
        for segment, _ in self._keys.below(name):
            if segment != MARK:
                kept = " (the kernel keeps something there)" if is_reserved(segment) else ""
                raise BackendError(f"{name}: the folder is not empty{kept}")
        if not marked:
            raise ObjectNotFound(name)
        self.forget(name)
        self._keys.drop(_mark(name))


def _mark(name: str) -> str:
    return f"{name}/{MARK}" if name else MARK
