"""Which folders a path is, at services that know folders by ids: each is asked for once.

Such services (Drime, Google Drive) may have several folders of one name. They count as one: what is
new goes into the first, and what is looked for is looked for in all. So gateways that made the same
folder at the same moment, unseen by each other, still see everything.

Within a process one thread makes a folder, and others wait for it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, TypeVar

from .errors import BackendError

Id = TypeVar("Id")

_MANY = 4
"""Folders of one call in one folder from which on it is looked at as a whole."""


def _unclaimed(_parent: str) -> AbstractContextManager[None]:
    return nullcontext()


class FolderIds(ABC, Generic[Id]):
    """The folders beneath a place's own.

    Args:
        root: ids of the place's folder.
    """

    makers = 8
    """Folders of one call that are made at a time."""

    def __init__(self, root: Sequence[Id]) -> None:
        self.root = tuple(root)
        self.on_made: Callable[[str], None] | None = None
        """Called with the folder in which another one was made."""
        self.claiming: Callable[[str], AbstractContextManager[None]] = _unclaimed
        """Held while folders are made in the one that it is called with, so that of the gateways
        that share a ledger one makes each."""
        self._known: dict[str, tuple[tuple[Id, ...], float]] = {}
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    # -- what a service adds

    @abstractmethod
    def _look(self, path: str, parent: str, parents: Sequence[Id], name: str) -> Sequence[Id]:
        """Return the ids of a folder, the first one first; none where there is none."""

    @abstractmethod
    def _look_at_all(self, parent: str, parents: Sequence[Id]) -> set[str]:
        """Note all folders in one, and return the paths of its items where they come along."""

    @abstractmethod
    def _make(self, path: str, parents: Sequence[Id], name: str) -> Sequence[Id]:
        """Return the ids of a folder, made where there is none.

        Raises:
            BackendError: it is an item.
        """

    @abstractmethod
    def _make_new(self, path: str, parents: Sequence[Id], name: str) -> Sequence[Id]:
        """The same for one that was not there a moment ago."""

    def _turn(self, parent: str, path: str) -> str:  # noqa: ARG002 - of those who look at one each
        """Return what one thread at a time looks at when it looks for a folder."""
        return path

    # -- finding

    def find(self, path: str, *, seen_after: float = 0.0) -> tuple[Id, ...] | None:
        """Return the ids of a folder, the first one first; None where there is none.

        Args:
            seen_after: monotonic time; what was last seen before it is looked at again.
        """
        if not path:
            return self.root
        if (known := self._seen(path, seen_after)) is not None:
            return known
        parent, _, name = path.rpartition("/")
        parents = self.find(parent, seen_after=seen_after)
        if parents is None:
            self.forget(path)
            return None
        with self._alone(self._turn(parent, path)):
            # Another thread may have looked meanwhile.
            if (known := self._seen(path, seen_after)) is not None:
                return known
            ids = self._look(path, parent, parents, name)
            if not ids:
                self.forget(path)
                return None
            return self._note(path, ids)

    def _seen(self, path: str, after: float) -> tuple[Id, ...] | None:
        known = self._known.get(path)
        return known[0] if known is not None and known[1] >= after else None

    def age(self, path: str) -> float:
        """Return how many seconds ago a folder was seen; 0 for the root."""
        known = self._known.get(path)
        return time.monotonic() - known[1] if known is not None else 0.0

    def confirm(self, path: str) -> None:
        """See by one request, where the service has such a one, whether a folder and those around
        it are what they were; what is not seen so is looked for by `find`."""

    # -- making

    def make(self, path: str) -> tuple[Id, ...]:
        """Return the ids of a folder, made with its parents where there is none.

        Raises:
            BackendError: one of them is an item.
        """
        found = self.find(path)
        if found is not None:
            return found
        parent, _, name = path.rpartition("/")
        parents = self.make(parent)
        with self._alone(path):
            if (known := self._seen(path, 0.0)) is not None:
                return known
            with self.claiming(parent):
                return self._note(path, self._make(path, parents, name))

    def make_several(self, paths: Iterable[str]) -> None:
        """Make folders; those in one folder together, with one look before and one after."""
        by_parent: dict[str, list[str]] = {}
        for path in dict.fromkeys(paths):
            if path:
                by_parent.setdefault(path.rpartition("/")[0], []).append(path)
        for parent, children in by_parent.items():
            if len(children) < _MANY:
                for path in children:
                    self.make(path)
                continue
            parents = self.make(parent)
            with self.claiming(parent):
                self._make_missing(parent, parents, children)

    def _make_missing(self, parent: str, parents: Sequence[Id], children: Sequence[str]) -> None:
        items = self._look_at_all(parent, parents)
        if clash := items.intersection(children):
            raise BackendError(f"{min(clash)}: is an item, not a folder")
        missing = [path for path in children if path not in self._known]
        if not missing:
            return
        with ThreadPoolExecutor(self.makers, thread_name_prefix="backupgw-folders") as pool:
            # The list makes the first error come out.
            [*pool.map(self._make_unlooked, missing, [parents] * len(missing))]
        self._look_at_all(parent, parents)

    def _make_unlooked(self, path: str, parents: Sequence[Id]) -> None:
        with self._alone(path):
            if path not in self._known:
                self._note(path, self._make_new(path, parents, path.rpartition("/")[2]))

    def _made(self, path: str) -> None:
        """Tell who wants to know that a folder was made."""
        if self.on_made is not None:
            self.on_made(path.rpartition("/")[0])

    # -- what is known

    def note_children(self, parent: str, children: Mapping[str, Sequence[Id]]) -> None:
        """Note folders that a whole listing has shown, by their segments."""
        for name, ids in children.items():
            self._note(f"{parent}/{name}" if parent else name, ids)

    def _chain(self, path: str) -> list[tuple[str, tuple[Id, ...]]] | None:
        """Return the folders on the way to one, with their ids; None where one is not known."""
        segments = path.split("/")
        paths = ["/".join(segments[:end]) for end in range(1, len(segments) + 1)]
        chain = [(each, self._seen(each, 0.0)) for each in paths]
        found = [(each, ids) for each, ids in chain if ids is not None]
        return found if len(found) == len(chain) else None

    def _note(self, path: str, ids: Sequence[Id], seen: float | None = None) -> tuple[Id, ...]:
        with self._changed:
            self._known[path] = (tuple(ids), time.monotonic() if seen is None else seen)
        return tuple(ids)

    def forget(self, path: str) -> None:
        """Forget a folder and all beneath it."""
        with self._changed:
            for known in [k for k in self._known if k == path or k.startswith(f"{path}/")]:
                del self._known[known]

    @contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        """Let one thread at a time look into, or make, a folder."""
        with self._changed:
            while path in self._busy:
                self._changed.wait()
            self._busy.add(path)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(path)
                self._changed.notify_all()
