"""Bringing a repository back as it was at a moment.

What was there at the moment and was deleted since comes back at its name. A name may have held
several values, a config above all: the one that it had at the moment wins, and what it replaces
goes to the trash. What was written since stays, unless the moment is wanted exactly: then it goes
to the trash, too, since what a thief has written can keep restic from using a repository.

Doing it again, or for another moment, ends as if it alone had been done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from backupgw.kvstore.layers.trash import TrashLayer, on_behalf_of
from backupgw.kvstore.layers.trash_contents import Entry, Trash
from backupgw.kvstore.layers.trash_names import How

from .place import lies_elsewhere
from .repositories import OPERATOR
from .trash_selection import Selection, folders_of

_MOST_MESSAGES = 100
_TICK = 0.05
"""Seconds that a file's time may lag behind the clock. One that is not older than its deletion was
not moved to the trash but copied, from a file system that a followed link leads to."""


@dataclass(slots=True)
class Restored:
    """What came back.

    Attributes:
        present: names that have an item already, which stayed.
        removed: names that had no item at the moment; their items are in the trash now.
        failed: what could not be brought back, with the reason; the first hundred.
    """

    items: int = 0
    bytes: int = 0
    present: int = 0
    replaced: int = 0
    removed: int = 0
    failures: int = 0
    failed: list[str] = field(default_factory=list)


class Restoring:
    """Brings back what a selection names.

    Args:
        place: open, as the server has it, with limits in front where there are some.
        layer: the trash in it.
        exact: put into the trash what was written since the selection's moment.
        dry_run: change nothing.
        on_restored: called after each item that came back.

    Raises:
        UnsupportedOperation: exact, and the place does not tell when an item was written.
    """

    def __init__(
        self,
        place: Backend,
        layer: TrashLayer,
        selection: Selection,
        *,
        exact: bool = False,
        dry_run: bool = False,
        on_restored: Callable[[Entry], None] = lambda _entry: None,
    ) -> None:
        self._trash = Trash(place)
        self._inner = layer.inner
        self._selection = selection
        self._exact = exact
        self._dry_run = dry_run
        self._on_restored = on_restored
        self._begun = layer.clock.now()
        inner = layer.inner.capabilities
        self._tells_age = inner.mtime and inner.move
        """Whether an item's time is still that of its writing when it lies in the trash."""
        self.restored = Restored()
        if exact and not self._tells_age:
            raise UnsupportedOperation(
                "this place does not tell of an item that came back when it was written; "
                "without --exact what was deleted comes back"
            )

    def run(self) -> Restored:
        """Bring it all back.

        Raises:
            UnsupportedOperation: exact, and a repository lies on another file system.
            BackendError: the place failed for the moment; what came back stays, and it can be
                done again.
        """
        with on_behalf_of(OPERATOR):
            for repo in self._selection.repositories(self._trash):
                if self._exact and lies_elsewhere(self._inner, repo):
                    raise UnsupportedOperation(
                        f"{repo or '/'} lies on another file system than the trash, so nobody "
                        "knows when what came back was written; leave out --exact"
                    )
                for folder in folders_of(repo):
                    came_back = self._restore_folder(folder)
                    if self._exact:
                        self._clear_folder(folder, came_back)
        return self.restored

    def _restore_folder(self, folder: str) -> set[str]:
        """Return the names that came back, or would."""
        versions: dict[str, list[Entry]] = {}
        for entry in self._selection.in_folder(self._trash, folder):
            if entry.when < self._begun:
                versions.setdefault(entry.name, []).append(entry)
        came_back = set()
        for name, found in versions.items():
            try:
                if self._restore_name(name, sorted(found, key=lambda entry: entry.when)):
                    came_back.add(name)
            except BackendError as error:
                self._failed(name, error)
        return came_back

    def _clear_folder(self, folder: str, came_back: set[str]) -> None:
        """Put into the trash what was written there since the moment."""
        parent, _, last = folder.rpartition("/")
        if parent.endswith("locks"):
            return  # they bypass the trash, and clients renew them
        since = self._selection.since
        assert since is not None
        try:
            found = [item for item in self._inner.list(parent) if not last or item.name == last]
        except ObjectNotFound:
            return
        for item in found:
            if item.directory or item.mtime <= since:
                continue
            name = f"{parent}/{item.name}" if parent else item.name
            if name in came_back:
                continue  # a dry run finds there what would have been replaced
            try:
                if not self._dry_run:
                    self._trash.discard(name)
            except ObjectNotFound:
                continue  # a client was faster
            except BackendError as error:
                self._failed(name, error)
            else:
                self.restored.removed += 1

    def _failed(self, name: str, error: BackendError) -> None:
        if error.retryable:
            raise error
        self.restored.failures += 1
        if len(self.restored.failed) < _MOST_MESSAGES:
            self.restored.failed.append(f"{name}: {error}")

    def _restore_name(self, name: str, found: list[Entry]) -> bool:
        """Bring back one name; return whether it came back.

        Args:
            found: what was deleted or replaced since the moment, oldest first.
        """
        present = self._inner.info(name)
        wanted = self._choose(found, present.mtime if present.exists else None)
        if wanted is None:
            self.restored.present += present.exists
            return False
        if not self._dry_run:
            try:
                self._trash.restore(wanted, replace=present.exists)
            except ObjectExists:
                self.restored.present += 1  # a client was faster
                return False
            except ObjectNotFound:
                if not self._inner.info(name).exists:
                    raise
                self.restored.present += 1  # another restore was faster
                return False
        self.restored.items += 1
        self.restored.bytes += wanted.size
        self.restored.replaced += present.exists
        self._on_restored(wanted)
        return True

    def _choose(self, found: list[Entry], present: float | None) -> Entry | None:
        """Return what is to come back, None for what is there, or for nothing.

        Args:
            present: when what it holds now was written; None where it holds nothing.
        """
        since = self._selection.since
        if since is None:
            return found[-1] if present is None else None
        if self._tells_age:
            return self._choose_by_age(found, present, since)
        # What a restore has replaced was not there at the moment, or was not wanted then.
        found = [entry for entry in found if entry.how is not How.UNDONE]
        return found[0] if found else None

    def _written(self, entry: Entry) -> float:
        """Return when an item of the trash was written; 0 where only its copy's time is known."""
        written = self._inner.info(entry.path).mtime
        return 0.0 if written > entry.when - _TICK else written

    def _choose_by_age(
        self, found: list[Entry], present: float | None, since: float
    ) -> Entry | None:
        held = [(self._written(entry), entry) for entry in found]
        then = [(written, entry) for written, entry in held if written <= since]
        if not then:
            return None  # it did not exist then
        written, entry = max(then, key=lambda pair: (pair[0], -pair[1].when))
        if present is not None and written <= present <= since:
            return None
        return entry
