"""Which of Drive's folders a path is: ids, kept so that each is asked for once.

Drive may have several folders of one name. They count as one: what is new goes into the oldest, and
what is looked for is looked for in all. So gateways that made the same folder at the same moment,
unseen by each other, still see everything.

Within a process one thread makes a folder, and others wait for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ..layers.retry_schedule import Trials
from .errors import BackendDoesNotExist, BackendError, NameTooLong, ObjectNotFound
from .gdrive_calls import Calls, Taken
from .gdrive_entry import Entry

LONGEST = 255
"""Characters of a name that are taken; Drive itself says nothing of a limit."""

OWN = "root"
"""What Drive calls the account's own folder. Who may see only what the gateway has made is told
nothing of it, and can use it all the same."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_MAKERS = 8
_MANY = 4
MOST_PARENTS = 50
"""Folders that are looked into by one request: their ids are in its URL."""


class Folders:
    """The folders beneath a place's own.

    Args:
        calls: the connection.
        root: ids of the place's folder.
    """

    def __init__(self, calls: Calls, root: Sequence[str]) -> None:
        self._calls = calls
        self.root = tuple(root)
        self.on_made: Callable[[str], None] | None = None
        """Called with the folder in which another one was made."""
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    def find(self, path: str, *, seen_after: float = 0.0) -> tuple[str, ...] | None:
        """Return the ids of a folder, the oldest first; None where there is none.

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
        with self._alone(path):
            if (known := self._seen(path, seen_after)) is not None:
                return known
            ids = [each.id for each in self.named(path, parents, name) if each.folder]
            if not ids:
                self.forget(path)
                return None
            return self._note(path, ids)

    def _seen(self, path: str, after: float) -> tuple[str, ...] | None:
        known = self._known.get(path)
        return known[0] if known is not None and known[1] >= after else None

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

    def make(self, path: str) -> tuple[str, ...]:
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
            there = self.named(path, parents, name)
            self._require_folder(path, there)
            ids = [entry.id for entry in there if entry.folder]
            if not ids:
                made = self._create(path, parents[0], name)
                # Another gateway may have made it as well, and both have to know of both.
                ids = [each.id for each in self.named(path, parents, name) if each.folder]
                ids = ids if made in ids else [*ids, made]
            return self._note(path, ids)

    def _require_folder(self, path: str, there: Sequence[Entry]) -> None:
        if there and not there[0].folder:
            raise BackendError(f"{path}: is an item, not a folder")

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
            items = self._look_at_all(parent, parents)
            if clash := items.intersection(children):
                raise BackendError(f"{min(clash)}: is an item, not a folder")
            missing = [path for path in children if path not in self._known]
            if not missing:
                continue
            with ThreadPoolExecutor(_MAKERS, thread_name_prefix="backupgw-gdrive") as pool:
                # The list makes the first error come out.
                [*pool.map(self._make_unlooked, missing, [parents[0]] * len(missing))]
            self._look_at_all(parent, parents)

    def _make_unlooked(self, path: str, parent: str) -> None:
        with self._alone(path):
            if path not in self._known:
                self._note(path, [self._create(path, parent, path.rpartition("/")[2])])

    def _look_at_all(self, parent: str, parents: Sequence[str]) -> set[str]:
        """Note the folders in one, and return the paths of its items."""
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
                if self.on_made is not None:
                    self.on_made(path.rpartition("/")[0])
                return new

    # -- what is known

    def note_children(self, parent: str, children: dict[str, list[Entry]]) -> None:
        """Note folders that a whole listing has shown, by their segments."""
        for name, entries in children.items():
            ids = [entry.id for entry in sorted(entries, key=lambda entry: entry.rank)]
            self._note(f"{parent}/{name}" if parent else name, ids)

    def _note(self, path: str, ids: Sequence[str]) -> tuple[str, ...]:
        with self._changed:
            self._known[path] = (tuple(ids), time.monotonic())
        return tuple(ids)

    def age(self, path: str) -> float:
        """Return how many seconds ago a folder was seen; 0 for the root."""
        known = self._known.get(path)
        return time.monotonic() - known[1] if known is not None else 0.0

    def forget(self, path: str) -> None:
        """Forget a folder and all beneath it."""
        with self._changed:
            for known in [k for k in self._known if k == path or k.startswith(f"{path}/")]:
                del self._known[known]

    @contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        """Let one thread at a time look for, or make, a folder."""
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
