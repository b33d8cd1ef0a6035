"""The items of a place in Drime: finding, settling, removing and copying them.

Drime takes any number of entries of one name. The one with the lowest id is the item, for every
reader and every gateway. So a new value waits unseen behind the old one until that is deleted, and
of several new ones everybody takes the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from ..layers.retry_schedule import Trials
from ..names import RESERVED_PREFIX, is_reserved
from . import drime_names
from .blocks_kept import BlocksKept
from .drime_calls import Calls
from .drime_entry import Entry
from .drime_errors import Refused
from .drime_folders import Folders
from .drime_links_ahead import LinksAhead
from .drime_listing import all_entries
from .drime_looks import Look, Looks
from .entry_items import FRESH, EntryItems
from .errors import BackendError, ObjectExists, ObjectNotFound
from .listing_ahead import Ahead

STAGING = f"{RESERVED_PREFIX}-staging"
"""Folder of a place in which entries wait that have no name yet, or no more."""

_LISTED_AT_ONCE = 64
"""Folders that are listed together at most: their ids are in the request's URL."""

_LISTINGS = 4
"""Requests for folders side by side that are made at the same time: all packs' are 256."""

_EMPTY = 1000
"""Empty folders that are kept in mind."""

_LOOKERS = 16
"""Requests for what comes next that are made beside another."""


class Items(EntryItems[int, Entry]):
    """The items of one opening of a place.

    Args:
        calls: the connection.
        folders: the place's.
        forever: deleted items are gone at once; else they go to Drime's trash.
    """

    def __init__(self, calls: Calls, folders: Folders, *, forever: bool) -> None:
        ahead: Ahead[int, Entry] = Ahead(
            lambda what, ids: all_entries(calls, what, ids),
            at_once=_LISTED_AT_ONCE,
            requests=_LISTINGS,
        )
        super().__init__(folders, ahead, keeps=forever)
        self.calls = calls
        self.folders = folders
        self.blocks = BlocksKept()
        self._forever = forever
        self._lookers = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="backupgw-drime-look")
        self.links_ahead = LinksAhead(calls, self._row, self._beside)
        self._writing: Counter[str] = Counter()
        self._shared: set[str] = set()
        self._empty: set[str] = set()
        """Folders that had nothing in them when they were listed last."""
        self._looks = Looks(calls, self._beside)

    def close(self) -> None:
        """End the threads."""
        self._lookers.shutdown(wait=False, cancel_futures=True)

    def _named(self, what: str, parents: Sequence[int], segment: str) -> list[Entry]:
        return self.folders.named(what, parents, segment)

    def rank(self, entry: Entry) -> int | str:
        return entry.id

    def id_of(self, entry: Entry) -> int:
        return entry.id

    def segment_of(self, entry: Entry) -> str | None:
        segment = drime_names.read(entry.name)
        return None if segment is None or is_reserved(segment) else segment

    def within(self, what: str, folders: Sequence[int]) -> Iterator[Entry]:
        return all_entries(self.calls, what, folders)

    def _kept(self, entry: Entry) -> Entry:
        return entry._replace(name="", stored_as="")

    def note_empty(self, folder: str, *, empty: bool) -> None:
        with self._lock:
            if not empty:
                self._empty.discard(folder)
            elif len(self._empty) < _EMPTY:
                self._empty.add(folder)

    def confirm_beside(self, folder: str) -> Future[None] | None:
        if folder not in self._empty or self.folders.age(folder) <= FRESH:
            return None
        return self._beside(lambda: self.folders.confirm(folder))

    def _row(self, row: str) -> list[tuple[str, Entry]]:
        """Return the items of a row of `LinksAhead` that are known."""
        with self._lock:
            known = [each for each in self._known.items() if each[0].startswith(row)]
        return [each for each in known if drime_names.is_hash(each[0].rpartition("/")[2])]

    def _beside(self, work: Callable[[], None]) -> Future[None] | None:
        try:
            return self._lookers.submit(work)
        except RuntimeError:  # the place was closed
            return None

    # -- changing

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Tell other writers of the same name in this process that there is one; see `alone`."""
        with self._lock:
            self._writing[name] += 1
            if self._writing[name] > 1:
                self._shared.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._writing[name] -= 1
                if not self._writing[name]:
                    del self._writing[name]
                    self._shared.discard(name)

    def alone(self, name: str) -> bool:
        """Whether no other writer of this process was within `writing` at the same time."""
        with self._lock:
            return name not in self._shared

    def look(self, name: str) -> Look | None:
        """Look, beside what the caller does, for what there is of a name, by one request; None
        where one would not tell."""
        return self._look_into(name, self.folders.make(name.rpartition("/")[0]))

    def _look_into(self, name: str, parents: tuple[int, ...]) -> Look | None:
        segment = name.rpartition("/")[2]
        return self._looks.begin(name, parents, drime_names.written(segment))

    def settle(
        self, name: str, mine: Entry, *, if_absent: bool, seen: Sequence[Entry] | None = None
    ) -> None:
        """Make a new entry the item, after it has come to be under its name.

        Args:
            seen: what there is of the name, where that is known already.

        Raises:
            ObjectExists: (if_absent) there is an older one. Both are still there.
            BackendError: there is a folder of that name. Likewise.
        """
        there = self._with(name, mine) if seen is None else seen
        older = [entry for entry in there if entry.id < mine.id]
        if any(entry.folder for entry in older):
            raise BackendError(f"{name}: is a folder")
        if older and if_absent:
            self.note(name, older[0])
            raise ObjectExists(f"{name} exists")
        # Whoever comes later removes this one, and whoever came earlier is removed here: of several
        # writers at a time the last one's value stays.
        if older:
            self.remove(name, [entry.id for entry in older], forever=self._forever)
        self.note(name, mine)

    def _with(self, name: str, mine: Entry) -> list[Entry]:
        """Return what there is of a name, after an entry of it was made.

        That entry may be missing: somebody has deleted or replaced it already.
        """
        parent, _, segment = name.rpartition("/")
        parents = self.folders.find(parent) or ()
        found = self.folders.named(name, parents, segment)
        if all(entry.id != mine.id for entry in found):
            # Or the search lags behind.
            found = self.folders.listed(name, parents, segment)
        return found

    def delete(self, name: str) -> int:
        """Delete an item, all entries of it; return its size in bytes. Raises ObjectNotFound."""
        known = self.known(name)
        if known is not None and drime_names.is_hash(name.rpartition("/")[2]):
            parents = self.folders.find(name.rpartition("/")[0])
            look = None if parents is None else self._look_into(name, parents)
            if look is not None and self._delete_known(name, known, look):
                return known.size
        found = self.entries(name)
        if not found or found[0].folder:
            raise ObjectNotFound(name)
        ids = [entry.id for entry in found if not entry.folder]
        self.note(name, None)
        if not self.remove(name, ids, forever=self._forever):
            raise ObjectNotFound(name)
        return found[0].size

    def _delete_known(self, name: str, known: Entry, look: Look) -> bool:
        """Delete an item that is named by its hash: the entry that is known, while others of the
        name are looked for. They have the same bytes, so who sees one of them for a moment more
        sees nothing else. False where none of them was there."""
        try:
            gone = self.remove(name, [known.id], forever=self._forever)
            there = look.found()
        finally:
            look.drop()
            self.note(name, None)
        if there is None:  # the folder has more in it than one request tells
            there = self.entries(name)
        others = [e.id for e in there if not e.folder and e.id != known.id]
        if others:
            gone |= self.remove(name, others, forever=self._forever)
        return gone

    def remove(self, what: str, ids: Sequence[int], *, forever: bool = True) -> bool:
        """Delete entries; False where somebody else had deleted all of them.

        Drime deletes nothing where one of several is gone: then it is asked for each.
        """
        trials = Trials(self.calls.schedule)
        self.blocks.forget(ids)
        while True:
            try:
                self.calls.delete(what, ids, forever=forever)
            except (Refused, ObjectNotFound):
                if len(ids) == 1:
                    # Gone at a repetition is done: the answer was lost.
                    return trials.failed
                done = [self.remove(what, [id_], forever=forever) for id_ in ids]
                return any(done)
            except BackendError as error:
                trials.pause(error)
            else:
                return True

    # -- staging

    def staging(self) -> int:
        """Return the id of the folder in which entries wait."""
        return self.folders.make(STAGING)[0]

    def set_aside(self, name: str, entry: Entry) -> None:
        """Take an entry out of sight; `bring_back` shows it again."""
        staging = self.staging()
        self.calls.repeated(lambda: self.calls.move(name, entry.id, staging))

    def bring_back(self, name: str, entry: Entry) -> None:
        """Show an entry again that was set aside."""
        folder = self.folder_of(name)
        self.calls.repeated(lambda: self.calls.move(name, entry.id, folder))

    def copy(self, source: Entry, name: str, *, if_absent: bool) -> Entry:
        """Make an item of a copy of an entry, by Drime itself; return the new entry.

        The copy gets its name out of sight, so that nobody ever sees it under another.

        Raises:
            ObjectExists: (if_absent) there is an item.
            ObjectNotFound: the entry is gone.
        """
        calls, segment = self.calls, drime_names.written(name.rpartition("/")[2])
        target = self.folder_of(name)
        # A folder of its own, for Drime takes no two entries of a name at renaming.
        corner = calls.repeated(
            lambda: calls.make_folder(name, f"{source.id}-{time.time_ns()}", self.staging())
        )
        try:
            try:
                made = calls.repeated(lambda: calls.duplicate(name, source.id, corner.id))
            except Refused as error:
                raise ObjectNotFound(f"{name}: its source is gone") from error
            if made.size != source.size:
                raise BackendError(f"{name}: Drime made a copy of another size", retryable=True)
            if made.name != segment:
                calls.repeated(lambda: calls.rename(name, made.id, segment))
            calls.repeated(lambda: calls.move(name, made.id, target))
            made = made._replace(name=segment)
            try:
                self.settle(name, made, if_absent=if_absent)
            except BackendError:
                self.remove(name, [made.id])
                raise
        finally:
            self.remove(name, [corner.id])
        return made

    def take_away(self, name: str, found: Sequence[Entry], copy: Entry, copied_to: str) -> None:
        """End a move: delete the entries that were copied, or the copy where they are gone."""
        self.note(name, None)
        if not self.remove(name, [e.id for e in found if not e.folder], forever=True):
            # Somebody else has moved or deleted it meanwhile.
            self.note(copied_to, None)
            self.remove(copied_to, [copy.id])
            raise ObjectNotFound(name)
