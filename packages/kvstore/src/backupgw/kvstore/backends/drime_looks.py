"""Looks for what there is of a name, made beside something else.

Each is a request of its own, on its way while the caller does what it is for. While Drime is seen
to limit requests, those that several threads want at about the same time are one request: an upload
costs little more than one of what Drime allows, in place of two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from .drime_calls import PER_PAGE, Calls
from .drime_entry import Entry
from .errors import BackendMustBeOpen

GATHERING = 0.05
"""Seconds for which looks are gathered that are made together."""

_FOLDERS = 64
"""Folders that are looked into together at most: their ids are in the request's URL."""

_REMEMBERED = 10_000
"""Folders of which is known how much they hold."""

Folder = tuple[int, ...]
"""The ids of a folder; Drime may have several of one name."""


class Look:
    """A look that is under way, or will be.

    Args:
        parents: ids of the folders that it sees.
        find: returns what it finds.
        drop: lets it go.
    """

    def __init__(
        self,
        parents: Folder,
        find: Callable[[], list[Entry] | None],
        drop: Callable[[], None] = lambda: None,
    ) -> None:
        self.parents = parents
        self._find = find
        self.drop = drop

    def found(self) -> list[Entry] | None:
        """Return the entries of the name, oldest first; None where not everything was seen.
        Called once; not after `drop`. Raises BackendError."""
        return self._find()


class _Wanted(NamedTuple):
    """A look that is made together with others."""

    what: str
    parents: Folder
    name: str
    found: Future[list[Entry] | None]


class Looks:
    """The looks of one opening of a place. Safe for threads.

    Args:
        calls: the connection.
        beside: runs something on another thread; None where there is none any more.
    """

    def __init__(
        self, calls: Calls, beside: Callable[[Callable[[], None]], Future[None] | None]
    ) -> None:
        self._calls = calls
        self._beside = beside
        self._lock = threading.Lock()
        self._waiting: list[_Wanted] = []
        self._gathering = False
        """Whether a thread makes the looks of those who wait."""
        self._held: dict[Folder, int] = {}
        """How much was in a folder when it was looked into last."""

    def begin(self, what: str, parents: Folder, name: str) -> Look | None:
        """Begin a look for a name, Drime's; None where one request would not tell."""
        if self._held.get(parents, 0) > PER_PAGE:
            return None
        if self._calls.limited:
            return Look(parents, partial(self._found_together, what, parents, name))
        begun = self._calls.begin_page(what, parents)

        def find() -> list[Entry] | None:
            page = begun.result()
            return self._told(parents, name, page.entries, whole=page.last)

        return Look(parents, find, begun.drop)

    def _told(
        self, parents: Folder, name: str, entries: Sequence[Entry], *, whole: bool
    ) -> list[Entry] | None:
        """Note how much a folder holds; return what was seen of a name, None where that is not
        all."""
        if len(self._held) < _REMEMBERED or parents in self._held:
            self._held[parents] = len(entries) if whole else PER_PAGE + 1
        return sorted(entry for entry in entries if entry.name == name) if whole else None

    # -- together

    def _found_together(self, what: str, parents: Folder, name: str) -> list[Entry] | None:
        wanted = _Wanted(what, parents, name, Future())
        with self._lock:
            self._waiting.append(wanted)
            begins, self._gathering = not self._gathering, True
        if begins:
            gathering = self._beside(self._gather)
            if gathering is None:
                self._close()
            else:
                gathering.add_done_callback(self._left)
        return wanted.found.result()

    def _gather(self) -> None:
        """Make the looks of those who wait, until nobody does."""
        while True:
            try:
                self._calls.wait(GATHERING)
            except BackendMustBeOpen:
                self._close()
                return
            with self._lock:
                batch = self._batch()
                if not batch:
                    self._gathering = False
                    return
            self._look_for(batch)

    def _batch(self) -> list[_Wanted]:
        """Take those who wait longest, of whose folders one page tells all. Called with the lock
        held."""
        folders: dict[Folder, int] = {}
        for count, wanted in enumerate(self._waiting):
            folders.setdefault(wanted.parents, self._held.get(wanted.parents, 0) + 1)
            if count and (len(folders) > _FOLDERS or sum(folders.values()) > PER_PAGE):
                break
        else:
            count = len(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _look_for(self, batch: Sequence[_Wanted]) -> None:
        """Make the looks of a batch; whatever happens, each of them ends."""
        parents = [*dict.fromkeys(id_ for wanted in batch for id_ in wanted.parents)]
        try:
            page = self._calls.repeated(lambda: self._calls.page(batch[0].what, parents))
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            for wanted in batch:
                wanted.found.set_exception(error)
            return
        if not page.last and any(wanted.parents != batch[0].parents for wanted in batch):
            for wanted in batch:  # somebody else has filled one of the folders
                self._look_for([wanted])
            return
        for _, own, name, found in batch:
            seen = [entry for entry in page.entries if entry.parent in own]
            found.set_result(self._told(own, name, seen, whole=page.last))

    def _left(self, gathering: Future[None]) -> None:
        if gathering.cancelled():
            self._close()

    def _close(self) -> None:
        """End the looks of those who wait: the place was closed."""
        with self._lock:
            waiting, self._waiting, self._gathering = self._waiting, [], False
        for wanted in waiting:
            wanted.found.set_exception(BackendMustBeOpen("the place was closed"))
