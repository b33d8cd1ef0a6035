"""Which of Google Drive's folders a path is; see `entry_folders`. The oldest comes first."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..layers.retry_schedule import Trials
from .entry_folders import FolderIds
from .errors import BackendDoesNotExist, BackendError, NameTooLong, ObjectNotFound
from .gdrive_calls import Calls, Taken
from .gdrive_entry import Entry

LONGEST = 255
"""Characters of a name that are taken; Drive itself says nothing of a limit."""

OWN = "root"
"""What Drive calls the account's own folder. Who may see only what the gateway has made is told
nothing of it, and can use it all the same."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
MOST_PARENTS = 50
"""Folders that are looked into by one request: their ids are in its URL."""


class Folders(FolderIds[str]):
    """The folders beneath a place's own.

    Args:
        calls: the connection.
        root: ids of the place's folder.
    """

    def __init__(self, calls: Calls, root: Sequence[str]) -> None:
        super().__init__(root)
        self._calls = calls

    # -- looking

    def _look(
        self,
        path: str,
        parent: str,  # noqa: ARG002 - one is looked for by its name
        parents: Sequence[str],
        name: str,
    ) -> Sequence[str]:
        return [each.id for each in self.named(path, parents, name) if each.folder]

    def named(self, what: str, parents: Sequence[str], segment: str) -> list[Entry]:
        """Return the entries of a name in folders, the oldest first: items and folders.

        Drive's search knows words, not letters: plain names are searched, others are looked for
        among all that there is.
        """
        searched = segment if _PLAIN.match(segment) else None
        found = {}
        for start in range(0, len(parents), MOST_PARENTS):
            some = parents[start : start + MOST_PARENTS]
            for entry in self._calls.entries(what, some, name=searched):
                if entry.name == segment and (entry.folder or entry.item):
                    found[entry.id] = entry
        return sorted(found.values(), key=lambda entry: entry.rank)

    # -- making

    def _make(self, path: str, parents: Sequence[str], name: str) -> Sequence[str]:
        there = self.named(path, parents, name)
        if there and not there[0].folder:
            raise BackendError(f"{path}: is an item, not a folder")
        ids = [entry.id for entry in there if entry.folder]
        if ids:
            return ids
        made = self._create(path, parents[0], name)
        # Another gateway may have made it as well, and both have to know of both.
        ids = [each.id for each in self.named(path, parents, name) if each.folder]
        return ids if made in ids else [*ids, made]

    def _make_new(self, path: str, parents: Sequence[str], name: str) -> Sequence[str]:
        return [self._create(path, parents[0], name)]

    def _look_at_all(self, parent: str, parents: Sequence[str]) -> set[str]:
        items: set[str] = set()
        found: dict[str, list[Entry]] = {}
        for start in range(0, len(parents), MOST_PARENTS):
            some = parents[start : start + MOST_PARENTS]
            for entry in self._calls.entries(parent or "/", some):
                path = f"{parent}/{entry.name}" if parent else entry.name
                if entry.folder:
                    found.setdefault(path, []).append(entry)
                elif entry.item:
                    items.add(path)
        for path, entries in found.items():
            self._note(path, [entry.id for entry in sorted(entries, key=lambda each: each.rank)])
        return items - set(found)

    def _create(self, path: str, parent: str, name: str) -> str:
        calls = self._calls
        new = calls.repeated(path, calls.new_id)
        trials = Trials(calls.schedule)
        while True:
            try:
                made = calls.make_folder(path, checked(name), parent, new)
            except Taken:
                return new  # an attempt whose answer was lost has made it
            except ObjectNotFound as error:
                self.forget(path.rpartition("/")[0])
                raise BackendError(
                    f"{path}: the folder around it was removed meanwhile", retryable=True
                ) from error
            except BackendError as error:
                trials.pause(error)
            else:
                if made.trashed:
                    self.forget(path.rpartition("/")[0])
                    raise BackendError(
                        f"{path}: the folder around it was removed meanwhile", retryable=True
                    )
                self._made(path)
                return new


def checked(name: str) -> str:
    """Return a name. Raises NameTooLong."""
    if len(name) > LONGEST:
        raise NameTooLong(f"{name[:40]!a}…: names have up to {LONGEST} characters here")
    return name


def root_of(calls: Calls, where: str, root: str, path: str) -> tuple[str, ...]:
    """Return the ids of a place's folder.

    Args:
        where: the place, for messages.
        root: id of the folder that `path` begins in.

    Raises:
        BackendDoesNotExist: there is none.
    """
    if root != OWN:
        _require_visible(calls, where, root)
    elif not path:
        calls.repeated(where, lambda: calls.page(where, [root], most=1))
    ids = Folders(calls, [root]).find(path)
    if ids is None:
        raise BackendDoesNotExist(f"{where}: there is no such folder")
    return ids


def _require_visible(calls: Calls, where: str, root: str) -> None:
    try:
        top = calls.repeated(where, lambda: calls.get(where, root))
    except ObjectNotFound as error:
        raise BackendDoesNotExist(
            f"{where}: there is no drive or folder of that id, or the account does not see it; "
            'with scope = "drive.file" it sees only what the gateway itself has made'
        ) from error
    if top.trashed:
        raise BackendDoesNotExist(f"{where}: lies in the trash")
