"""Several places that hold the same: what is written goes to all, what is read comes from one.

- A change is acknowledged when `quorum` places have it durably. What others missed (a place was
  down, full, too slow) is in the journal by then, and is put right when they return.
- Reading prefers the first place, and goes on at the next where one fails, lacks or has damaged
  what it should hold, in the middle of an item too.
- A change that too few places made has failed: it is taken back where it was made.
- One writer of a name at a time reaches the places, so they agree on who was last; if_absent is
  decided at that moment, by what the places hold. That holds for all who share the journal: every
  process of one machine. Two machines must not write to the same mirror.

`mirror_repair` says how places are made the same again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence

from ..backends.base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer, require_found
from ..backends.errors import (
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    ObjectExists,
    ObjectNotFound,
)
from ..names import check_folder, check_path
from . import mirror_listing
from .base import Layer
from .mirror_active import Active
from .mirror_crew import Crew
from .mirror_inspection import Found, inspect
from .mirror_opening import Opening
from .mirror_places import Place, PlaceStatus
from .mirror_repair import Compare, Extras, RepairReport
from .mirror_telling import OnChange
from .mirror_writer import Lane, MirrorWriter
from .options import OptionInvalid, count, duration, flag, text


def from_options(
    inner: Backend,
    *,
    places: Sequence[Backend],
    quorum: object = None,
    patience: object = 30,
    journal: object = None,
    sync: object = True,
    state_folder: str | None = None,
    on_change: object = None,
) -> MirrorLayer:
    """`places`: the others; `quorum`: places that must acknowledge a change; `patience`: how long
    a place may take for one step; `journal`: a file, by default in the place's state folder;
    `sync`: whether the journal outlasts a power loss; `on_change` comes from the context."""
    if on_change is not None and not callable(on_change):
        raise OptionInvalid("on_change", "is a function, which only a program can give")
    if not places:
        raise OptionInvalid("places", "a mirror needs at least one other place")
    if journal is None and state_folder is None:
        raise OptionInvalid(
            "journal", "is missing; write the path of a file on this machine's disk"
        )
    path = text("journal", journal) if journal is not None else f"{state_folder}/mirror.sqlite3"
    if not os.path.isabs(path):
        raise OptionInvalid("journal", f"{path!r} must be an absolute path")
    needed = None if quorum is None else count("quorum", quorum, least=1)
    if needed is not None and needed > len(places) + 1:
        raise OptionInvalid("quorum", f"{needed} is more than the {len(places) + 1} places")
    return MirrorLayer(
        inner,
        places,
        path,
        quorum=needed,
        patience=duration("patience", patience, least=0.1),
        sync=flag("sync", sync),
        on_change=on_change,
    )


def default_quorum(places: int) -> int:
    """Half of the places, rounded up: one of two, two of three.

    Two places that both had to be up would make backups fail twice as often as one.
    """
    return (places + 1) // 2


class MirrorLayer(Layer):
    """Places that hold the same.

    Args:
        inner: the first place, preferred for reading.
        others: the other places. Their order is part of the mirror; new ones go to the end.
        journal: absolute path of the journal's file, on a disk of this machine.
        quorum: places that must acknowledge a change; see `default_quorum`.
        patience: seconds that a place may take for one step before it counts as down.
        sync: whether the journal's records outlast a power loss.
        on_change: called with each place's status at the opening, and whenever it has changed
            (how much a place missed is looked at every half minute); must not wait.

    Attributes:
        self_repair: whether a thread brings places back and gives them what they missed. A program
            that repairs when it is told to turns it off before it opens the mirror.
    """

    def __init__(
        self,
        inner: Backend,
        others: Sequence[Backend],
        journal: str,
        *,
        quorum: int | None = None,
        patience: float = 30.0,
        sync: bool = True,
        on_change: OnChange | None = None,
    ) -> None:
        super().__init__(inner)
        backends = [inner, *others]
        self.quorum = default_quorum(len(backends)) if quorum is None else quorum
        if not 1 <= self.quorum <= len(backends):
            raise ValueError(f"a quorum of {self.quorum} among {len(backends)} places")
        self._path = journal
        self._sync = sync
        self._on_change = on_change
        self.self_repair = True
        self._crew = Crew("mirror")
        self._places = [
            Place(
                str(number),
                backend,
                self._crew,
                patience=patience,
                on_change=self._state_changed,
            )
            for number, backend in enumerate(backends, 1)
        ]
        self._active: Active | None = None

    def __repr__(self) -> str:
        return f"MirrorLayer({', '.join(repr(place.backend) for place in self._places)})"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the places'
        """What all places can do. if_absent is decided here, whatever they can do."""
        all_of = [place.backend.capabilities for place in self._places]
        return dataclasses.replace(
            super().capabilities,
            atomic_create=True,
            ranges=all(each.ranges for each in all_of),
            hash=all(each.hash for each in all_of),
            mtime=all(each.mtime for each in all_of),
            move=False,
            case_sensitive=all(each.case_sensitive for each in all_of),
            streaming=all(each.streaming for each in all_of),
            shared=all(each.shared for each in all_of),
        )

    # -- the mirror as a whole

    def create(self) -> None:
        """Make all places. Where one exists already none is made."""
        self._must_be_closed()
        Opening(self._places, self._path, sync=self._sync).create()

    def destroy(self) -> None:
        """Remove all places, and forget what they missed."""
        self._must_be_closed()
        Opening(self._places, self._path, sync=self._sync).destroy()

    def open(self) -> None:
        """Open the places; a quorum need not be up, but one must be that was filled.

        Raises:
            BackendDoesNotExist: none exists.
            BackendError: none can be used.
        """
        self._must_be_closed()
        opening = Opening(self._places, self._path, sync=self._sync)
        journal = opening.open()
        self._active = Active(self._places, journal, self.quorum, opening, self._on_change)
        self._active.teller.tell_all()
        if self.self_repair:
            self._active.keeper.start()

    def close(self) -> None:
        active = self._opened
        self._active = None
        active.close()
        self._crew.close()

    @property
    def _opened(self) -> Active:
        if self._active is None:
            raise BackendMustBeOpen("the mirror is not open")
        return self._active

    def _must_be_closed(self) -> None:
        if self._active is not None:
            raise BackendMustNotBeOpen("the mirror is open")

    def _state_changed(self, place: Place) -> None:
        if self._active is not None:
            self._active.state_changed(place)

    # -- what operators ask and do

    def status(self) -> list[PlaceStatus]:
        """Tell how each place is."""
        return self._opened.status()

    @property
    def journal_path(self) -> str:
        """Where the journal lies, or will."""
        return self._path

    def inspect(self) -> list[Found]:
        """Look at each place of a mirror that is not open here, changing nothing."""
        self._must_be_closed()
        return inspect(self._places, self._path)

    def replay(self) -> RepairReport:
        """Try the places that are down, and put right what those that are up have missed, now.

        The mirror does so by itself in the background as places return.
        """
        return self._opened.replay()

    def repair(
        self,
        *,
        compare: Compare = Compare.SIZE,
        extras: Extras = Extras.REPORT,
        dry_run: bool = False,
        report: RepairReport | None = None,
    ) -> RepairReport:
        """Go through everything and make the places the same; see `mirror_repair`.

        Args:
            compare: how closely items are looked at.
            extras: what happens to items that a place should not have.
            dry_run: report what would be done, and do nothing.
            report: filled and returned, for who wants to look at it meanwhile.
        """
        return self._opened.repair(compare, extras, report, dry_run=dry_run)

    def adopt(
        self, number: int, *, create: bool = False, report: RepairReport | None = None
    ) -> RepairReport:
        """Take the place of that number, from 1 on, into the mirror as it is now, and fill it.

        For a disk that was replaced: until then a place without the mirror's mark, or with
        another's, is not touched.

        Args:
            create: make the place where it does not exist.
            report: filled and returned, for who wants to look at it meanwhile.
        """
        return self._opened.adopt(self._places[number - 1], report, create=create)

    # -- reading

    def info(self, name: str) -> ItemInfo:
        active = self._opened
        check_folder(name)
        if name == "":
            return ItemInfo("", exists=True, size=0, directory=True)
        return active.reads.info(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        active = self._opened
        check_folder(name)
        return mirror_listing.entries(active.reads, name)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        active = self._opened
        check_path(name)
        return active.reads.open_reader(name, offset, size)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        active = self._opened
        check_path(name)
        if not self.capabilities.hash:
            return super().hash(name, algorithm)
        return active.reads.first(name, lambda backend: backend.hash(name, algorithm))[1]

    # -- changing

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        active = self._opened
        check_path(name)
        lanes = [
            Lane(
                place,
                self._crew,
                lambda backend: backend.open_writer(name, size=size, expected_hash=expected_hash),
            )
            for place in active.changes.usable(name)
        ]
        return MirrorWriter(active.changes, name, lanes, size=size, if_absent=if_absent)

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        active = self._opened
        check_path(name)
        size = 0

        def check() -> None:
            nonlocal size
            size = self._must_be_item(name).size

        active.changes.everywhere(
            [name],
            lambda place: place.start(lambda backend: backend.delete(name)),
            check=check,
            gone_is_done=True,
        )
        return size

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=False)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=True)

    def _move(self, name: str, new_name: str, *, if_absent: bool) -> None:
        active = self._opened
        check_path(name)
        check_path(new_name)
        if name == new_name and not if_absent:
            self._must_be_item(name)
            return

        def check() -> None:
            self._must_be_item(name)
            if if_absent and active.reads.info(new_name).exists:
                raise ObjectExists(f"{new_name} exists")

        active.changes.everywhere(
            [name, new_name],
            lambda place: place.start(lambda backend: backend.move(name, new_name)),
            check=check,
            # A place that has not got the right item has nothing to move.
            places=lambda: active.reads.candidates(name),
        )

    def _must_be_item(self, name: str) -> ItemInfo:
        return require_found(self._opened.reads.info(name))

    def quarantine(self, name: str) -> str:
        """Set an item aside at all places; returns where the first of them keeps it."""
        active = self._opened
        check_path(name)
        kept = active.changes.everywhere(
            [name],
            lambda place: place.start(lambda backend: backend.quarantine(name)),
            check=lambda: self._must_be_item(name),
            gone_is_done=True,
        )
        return kept[0] if kept else ""

    def mkdir(self, name: str) -> None:
        active = self._opened
        check_path(name)
        active.changes.made_folders(
            [name], lambda place: place.start(lambda backend: backend.mkdir(name))
        )

    def mkdirs(self, names: Iterable[str]) -> None:
        active = self._opened
        folders = [check_path(name) for name in names]
        if not folders:
            return
        active.changes.made_folders(
            folders, lambda place: place.start(lambda backend: backend.mkdirs(folders))
        )

    def rmdir(self, name: str) -> None:
        active = self._opened
        check_path(name)

        def check() -> None:
            info = active.reads.info(name)
            if not info.exists:
                raise ObjectNotFound(name)
            if not info.directory:
                raise BackendError(f"{name}: is an item, not a folder")
            if next(mirror_listing.entries(active.reads, name), None) is not None:
                raise BackendError(f"{name}: the folder is not empty")

        active.changes.everywhere(
            [name],
            lambda place: place.start(lambda backend: backend.rmdir(name)),
            check=check,
            gone_is_done=True,
        )

    # -- upkeep

    def sync(self, name: str) -> None:
        active = self._opened
        check_path(name)
        active.changes.synced(name, active.reads.candidates(name))

    def reap(self, older_than: float) -> int:
        """Remove what dead writers left at the places that are up."""
        return self._opened.reap(older_than)

    def quota(self) -> Quota:
        """Return the figures of the place with the least room."""
        return self._opened.quota()
