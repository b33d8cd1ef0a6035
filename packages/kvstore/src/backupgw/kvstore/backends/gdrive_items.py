"""The items of a place in Google Drive: finding, settling, removing and copying them.

Drive takes any number of files of one name. The oldest is the item, for every reader and every
gateway: so of several new ones everybody takes the same, and whoever sees an older one than its own
takes its own back. An item that is replaced keeps its id and gets new bytes, in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..layers.retry_schedule import Trials
from ..names import is_nameable, is_reserved
from .entry_items import EntryItems
from .errors import BackendError, ObjectExists, ObjectNotFound
from .gdrive_calls import Calls, Taken
from .gdrive_entry import Entry
from .gdrive_folders import MOST_PARENTS, Folders, checked
from .listing_ahead import Ahead


class Items(EntryItems[str, Entry]):
    """The items of one opening of a place.

    Args:
        calls: the connection.
        folders: the place's.
        trash: what is deleted goes to Drive's trash; else it is gone at once.
    """

    def __init__(self, calls: Calls, folders: Folders, *, trash: bool) -> None:
        ahead: Ahead[str, Entry] = Ahead(
            lambda what, ids: calls.entries(what, ids, parents_told=True), at_once=MOST_PARENTS
        )
        super().__init__(folders, ahead, keeps=not trash)
        self.calls = calls
        self.folders = folders
        self._trash = trash

    def _named(self, what: str, parents: Sequence[str], segment: str) -> list[Entry]:
        return self.folders.named(what, parents, segment)

    def rank(self, entry: Entry) -> int | str:
        return entry.rank

    def id_of(self, entry: Entry) -> str:
        return entry.id

    def segment_of(self, entry: Entry) -> str | None:
        shown = (entry.folder or entry.item) and is_nameable(entry.name)
        return entry.name if shown and not is_reserved(entry.name) else None

    def within(self, what: str, folders: Sequence[str]) -> Iterator[Entry]:
        return self.calls.entries(what, folders)

    def _kept(self, entry: Entry) -> Entry:
        return entry._replace(name="", parent="")

    # -- changing

    def require_free(self, name: str, *, but: str | None = None) -> None:
        """Raise ObjectExists where there is an item, BackendError where there is a folder.

        Args:
            but: id of a file that does not count.
        """
        found = [entry for entry in self.entries(name) if entry.id != but]
        self._require_item(name, found)
        if found:
            raise ObjectExists(f"{name} exists")

    def _require_item(self, name: str, found: Sequence[Entry]) -> None:
        if any(entry.folder for entry in found):
            raise BackendError(f"{name}: is a folder")

    def item_to_replace(self, name: str) -> str | None:
        """Return the id of the item that a value replaces, None where there is none.

        Raises:
            BackendError: there is a folder of that name.
        """
        if (known := self.known(name)) is not None:
            return known.id
        self._require_item(name, found := self.entries(name))
        return found[0].id if found else None

    def settle(self, name: str, mine: Entry, *, if_absent: bool) -> None:
        """Make a new file the item, after it has come to be under its name.

        Raises:
            ObjectExists: (if_absent) there is an older one; ours is gone.
            BackendError: there is a folder of that name; likewise.
        """
        parent, _, segment = name.rpartition("/")
        parents = self.folders.find(parent) or (mine.parent,)
        there = self.folders.named(name, parents, segment)
        older = [entry for entry in there if entry.id != mine.id and entry.rank < mine.rank]
        if any(entry.folder for entry in there) or (older and if_absent):
            self.remove(name, mine.id, trash=False)
            self._require_item(name, there)
            self.note(name, older[0])
            raise ObjectExists(f"{name} exists")
        for entry in older:
            self.remove(name, entry.id)
        self.note(name, mine)

    def delete(self, name: str) -> None:
        """Delete an item, all files of it. Raises ObjectNotFound."""
        found = self.entries(name)
        if not found or found[0].folder:
            raise ObjectNotFound(name)
        self.note(name, None)
        # The oldest last: until then, nobody sees another.
        done = [self.remove(name, each.id) for each in reversed(found) if not each.folder]
        if not any(done):
            raise ObjectNotFound(name)

    def is_as_it_was(self, name: str, seen: Entry) -> bool:
        """Whether a file has the bytes that it had when it was seen; a gone one has."""
        try:
            now = self.calls.repeated(name, lambda: self.calls.get(name, seen.id))
        except ObjectNotFound:
            return True
        return (now.size, now.changed) == (seen.size, seen.changed)

    def remove(self, what: str, entry: str, *, trash: bool | None = None) -> bool:
        """Remove a file; False where somebody else had done it.

        Args:
            trash: into the trash, or for ever; as the place has it where not given.
        """
        calls, trials = self.calls, Trials(self.calls.schedule)
        aside = self._trash if trash is None else trash
        while True:
            try:
                if aside:
                    calls.set_trashed(what, entry, True)
                else:
                    calls.delete(what, entry)
            except ObjectNotFound:
                return trials.failed  # gone at a repetition is done: the answer was lost
            except BackendError as error:
                trials.pause(error)
            else:
                return True

    def copy(self, source: Entry, name: str, *, if_absent: bool) -> Entry:
        """Make an item of a copy of a file, by Drive itself; return the new one.

        Raises:
            ObjectExists: (if_absent) there is an item.
            ObjectNotFound: the source is gone.
        """
        if if_absent:
            self.require_free(name)
        calls, segment = self.calls, checked(name.rpartition("/")[2])
        folder = self.folder_of(name)
        new = calls.repeated(name, calls.new_id)
        trials = Trials(calls.schedule)
        while True:
            try:
                made = calls.copy(name, source.id, segment, folder, new)
            except Taken:
                made = calls.repeated(name, lambda: calls.get(name, new))
            except BackendError as error:
                trials.pause(error)
                continue
            break
        self.settle(name, made, if_absent=if_absent)
        return made
