"""Which of Drime's folders a path is; see `entry_folders`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ..layers.retry_schedule import Trials
from . import drime_names
from .drime_calls import Calls
from .drime_entry import Entry
from .drime_errors import Refused
from .drime_listing import all_entries
from .entry_folders import FolderIds
from .errors import BackendDoesNotExist, BackendError

_log = logging.getLogger(__name__)

_BULK = 1000
"""Folders beside one that is looked for that are noted at once; where there are more, it is
searched by name."""


class Folders(FolderIds[int]):
    """The folders beneath a place's own.

    Args:
        calls: the connection.
        root: ids of the place's folder.
    """

    makers = 24

    def __init__(self, calls: Calls, root: Sequence[int]) -> None:
        super().__init__(root)
        self._calls = calls
        self._search = True
        """Whether Drime's search is asked."""

    # -- looking

    def _turn(self, parent: str, path: str) -> str:  # noqa: ARG002 - all in it are looked at
        return parent

    def _look(self, path: str, parent: str, parents: Sequence[int], name: str) -> Sequence[int]:
        siblings: dict[str, list[int]] = {}
        for count, entry in enumerate(all_entries(self._calls, path, parents, folders=True)):
            if count >= _BULK:
                return [each.id for each in self.named(path, parents, name) if each.folder]
            if entry.folder and (segment := drime_names.read(entry.name)) is not None:
                siblings.setdefault(segment, []).append(entry.id)
        found = {segment: sorted({*ids}) for segment, ids in siblings.items()}
        self.note_children(parent, found)
        return found.get(name, [])

    def _look_at_all(self, parent: str, parents: Sequence[int]) -> set[str]:
        found: dict[str, list[int]] = {}
        for entry in all_entries(self._calls, parent or "/", parents, folders=True):
            if (segment := drime_names.read(entry.name)) is not None:
                found.setdefault(segment, []).append(entry.id)
        self.note_children(parent, {name: sorted({*ids}) for name, ids in found.items()})
        return set()

    def confirm(self, path: str) -> None:
        chain = self._chain(path)
        if not path or not chain:
            return
        asked_at = time.monotonic()
        parents = (self.root, *(ids for _, ids in chain[:-1]))
        around = [id_ for ids in parents for id_ in ids]
        page = self._calls.repeated(lambda: self._calls.page(path, around, folders=True))
        if not page.last:
            return
        for (each, ids), within in zip(chain, parents, strict=True):
            name = each.rpartition("/")[2]
            seen = {
                entry.id
                for entry in page.entries
                if entry.parent in within and drime_names.read(entry.name) == name
            }
            if seen != {*ids}:
                return
        for each, ids in chain:
            self._note(each, ids, asked_at)

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

    def _make_new(self, path: str, parents: Sequence[int], name: str) -> Sequence[int]:
        made = self._create(path, parents[0], name)
        return self._make(path, parents, name) if made is None else [made]

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
                self._made(path)
                return made


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
