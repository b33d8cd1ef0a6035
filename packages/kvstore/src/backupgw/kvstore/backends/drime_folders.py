"""Which of Drime's folders a path is: ids, kept so that each is asked for once.

Drime may have several folders of one name. They count as one: what is new goes into the one with
the lowest id, and what is looked for is looked for in all. So gateways that made the same folder at
the same moment, unseen by each other, still see everything.

Within a process one thread makes a folder, and others wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from ..layers.retry_schedule import Trials
from . import drime_names
from .drime_calls import Calls
from .drime_entry import Entry
from .drime_errors import Refused
from .drime_listing import all_entries
from .errors import BackendDoesNotExist, BackendError

_log = logging.getLogger(__name__)

_BULK = 1000
"""Folders beside one that is looked for that are noted at once; where there are more, it is
searched by name."""

_MAKERS = 8
"""Folders of one call that are made at a time."""


class _Known(NamedTuple):
    ids: tuple[int, ...]
    at: float


class Folders:
    """The folders beneath a place's own.

    Args:
        calls: the connection.
        root: ids of the place's folder.
    """

    def __init__(self, calls: Calls, root: Sequence[int]) -> None:
        self._calls = calls
        self.root = tuple(root)
        self.on_made: Callable[[str], None] | None = None
        """Called with the folder in which another one was made."""
        self._search = True
        """Whether Drime's search is asked."""
        self._known: dict[str, _Known] = {}
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    def find(self, path: str, *, seen_after: float = 0.0) -> tuple[int, ...] | None:
        """Return the ids of a folder, the lowest first; None where there is none.

        Args:
            seen_after: monotonic time; what was last seen before it is looked at again.
        """
        if not path:
            return self.root
        known = self._known.get(path)
        if known is not None and known.at >= seen_after:
            return known.ids
        parent, _, name = path.rpartition("/")
        parents = self.find(parent, seen_after=seen_after)
        if parents is None:
            self.forget(path)
            return None
        with self._alone(parent):
            # Another thread may have looked meanwhile.
            known = self._known.get(path)
            if known is not None and known.at >= seen_after:
                return known.ids
            return self._look(path, parent, parents, name)

    def age(self, path: str) -> float:
        """Return how many seconds ago a folder was seen; 0 for the root."""
        known = self._known.get(path)
        return time.monotonic() - known.at if known is not None else 0.0

    def make(self, path: str) -> tuple[int, ...]:
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
            known = self._known.get(path)
            if known is not None:
                return known.ids
            ids = tuple(self._make(path, parents, name))
            self._note(path, ids)
            return ids

    def make_several(self, paths: Iterable[str]) -> None:
        """Make folders; those in one folder together, with one look before and one after."""
        by_parent: dict[str, list[str]] = {}
        for path in dict.fromkeys(paths):
            if path:
                by_parent.setdefault(path.rpartition("/")[0], []).append(path)
        for parent, children in by_parent.items():
            if len(children) < 4:
                for path in children:
                    self.make(path)
                continue
            parents = self.make(parent)
            self._look_at_all(parent, parents)
            missing = [path for path in children if path not in self._known]
            if not missing:
                continue
            with ThreadPoolExecutor(_MAKERS, thread_name_prefix="backupgw-drime") as pool:
                # The list makes the first error come out.
                [*pool.map(lambda path: self._make_unlooked(path, parents), missing)]  # noqa: B023
            self._look_at_all(parent, parents)

    def note_children(self, parent: str, entries: Mapping[str, Sequence[int]]) -> None:
        """Note folders that a whole listing has shown, by their segments."""
        for name, ids in entries.items():
            self._note(f"{parent}/{name}" if parent else name, sorted(ids))

    def forget(self, path: str) -> None:
        """Forget a folder and all beneath it."""
        with self._changed:
            for known in [k for k in self._known if k == path or k.startswith(f"{path}/")]:
                del self._known[known]

    # -- looking

    def _note(self, path: str, ids: Sequence[int]) -> None:
        with self._changed:
            self._known[path] = _Known(tuple(ids), time.monotonic())

    def _look(
        self, path: str, parent: str, parents: Sequence[int], name: str
    ) -> tuple[int, ...] | None:
        siblings: dict[str, list[int]] = {}
        for count, entry in enumerate(all_entries(self._calls, path, parents, folders=True)):
            if count >= _BULK:
                ids = [each.id for each in self.named(path, parents, name) if each.folder]
                if ids:
                    self._note(path, ids)
                break
            if entry.folder and (segment := drime_names.read(entry.name)) is not None:
                siblings.setdefault(segment, []).append(entry.id)
        else:
            self.note_children(parent, {n: sorted({*ids}) for n, ids in siblings.items()})
            ids = sorted({*siblings.get(name, ())})
        if not ids:
            self.forget(path)
            return None
        return tuple(ids)

    def _look_at_all(self, parent: str, parents: Sequence[int]) -> None:
        found: dict[str, list[int]] = {}
        for entry in all_entries(self._calls, parent or "/", parents, folders=True):
            if (segment := drime_names.read(entry.name)) is not None:
                found.setdefault(segment, []).append(entry.id)
        self.note_children(parent, {name: sorted({*ids}) for name, ids in found.items()})

    def named(self, what: str, parents: Sequence[int], segment: str) -> list[Entry]:
        """Return the entries of a name in folders, the lowest id first: items and folders.

        One request where Drime's search finds it. That there is nothing only a whole listing tells:
        a search may lag behind, and once it has overlooked something it is not asked again.
        """
        searched = self._search and drime_names.is_plain(segment)
        found = self._searched(what, parents, segment) if searched else []
        if not found:
            found = self.listed(what, parents, segment)
            # Asked again, for it may have come to be between the two.
            if found and searched and not self._searched(what, parents, segment):
                self._search = False
                _log.warning("%s: Drime's search misses it; folders are listed instead", what)
        return sorted({entry.id: entry for entry in found}.values())

    def _searched(self, what: str, parents: Sequence[int], segment: str) -> list[Entry]:
        name = drime_names.written(segment)
        page = self._calls.repeated(lambda: self._calls.page(what, parents, query=name))
        return [entry for entry in page.entries if entry.name == name]

    def listed(self, what: str, parents: Sequence[int], segment: str) -> list[Entry]:
        """Return the entries of a name by looking at all that lies in the folders."""
        name = drime_names.written(segment)
        return [each for each in all_entries(self._calls, what, parents) if each.name == name]

    # -- making

    def _make(self, path: str, parents: Sequence[int], name: str) -> list[int]:
        for _ in range(2):
            there = self.named(path, parents, name)
            if any(not entry.folder for entry in there[:1]):
                raise BackendError(f"{path}: is an item, not a folder")
            if ids := [entry.id for entry in there if entry.folder]:
                return ids
            made = self._create(path, parents[0], name)
            # Another gateway may have made it as well, and both have to know of both.
            ids = [entry.id for entry in self.named(path, parents, name) if entry.folder]
            if made is not None or ids:
                return sorted({*ids, *([] if made is None else [made])})
        raise BackendError(f"{path}: Drime neither has this folder nor makes it", retryable=True)

    def _make_unlooked(self, path: str, parents: Sequence[int]) -> None:
        name = path.rpartition("/")[2]
        with self._alone(path):
            if path in self._known:
                return
            made = self._create(path, parents[0], name)
            if made is None:
                self._note(path, self._make(path, parents, name))
            else:
                self._note(path, [made])

    def _create(self, path: str, parent: int, name: str) -> int | None:
        """Make a folder; None where Drime refuses it: there is one, or the parent is gone."""
        trials = Trials(self._calls.schedule)
        while True:
            try:
                made = self._calls.make_folder(path, drime_names.written(name), parent).id
            except Refused:
                return None
            except BackendError as error:
                trials.pause(error)
                # It may have been made before the connection broke.
                there = self.named(path, [parent], name)
                if ids := [entry.id for entry in there if entry.folder]:
                    return ids[0]
            else:
                if self.on_made is not None:
                    self.on_made(path.rpartition("/")[0])
                return made

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


def root_of(calls: Calls, path: str) -> tuple[int, ...]:
    """Return the ids of a place's folder.

    Args:
        path: within the workspace, "" for its root.

    Raises:
        BackendDoesNotExist: there is none.
    """
    ids = Folders(calls, [0]).find(path)
    if ids is None:
        raise BackendDoesNotExist(f"Drime has no folder {path!r} in workspace {calls.workspace}")
    return ids
