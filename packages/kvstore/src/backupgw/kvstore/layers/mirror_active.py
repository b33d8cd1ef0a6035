"""A mirror while it is open: what it holds, and the upkeep of its places."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..backends.base import Quota
from ..backends.errors import BackendError
from .mirror_changes import Changes
from .mirror_journal import Journal
from .mirror_keeper import Keeper
from .mirror_opening import Opening
from .mirror_places import CLOSED, Place, PlaceStatus
from .mirror_reads import Reads
from .mirror_repair import Compare, Extras, Repair, RepairReport
from .mirror_telling import OnChange, Teller

logger = logging.getLogger(__name__)


class Active:
    """The parts of an open mirror.

    Args:
        places: all of them, those that are down too.
        journal: open; closed with the mirror.
        quorum: places that must acknowledge a change.
        opening: how a place is taken in.
        on_change: as `MirrorLayer` has it.
    """

    def __init__(
        self,
        places: Sequence[Place],
        journal: Journal,
        quorum: int,
        opening: Opening,
        on_change: OnChange | None,
    ) -> None:
        self._places = places
        self._journal = journal
        self.teller = Teller(places, journal, on_change)
        self.reads = Reads(places, journal, lambda: self.keeper.wake())
        self.changes = Changes(self.reads, quorum, lambda: self.keeper.wake())
        self._repair = Repair(self.reads, self.changes)
        self.keeper = Keeper(self._repair, opening, self.teller.tell_all)

    def close(self) -> None:
        """Let go of the places and the journal."""
        self.keeper.stop()
        for place in self._places:
            place.take_down(CLOSED)
            place.shut()
        self._journal.close()

    def state_changed(self, place: Place) -> None:
        """Take notice that a place went down or came back."""
        self.keeper.wake()
        self.teller.tell(place)

    def status(self) -> list[PlaceStatus]:
        """Tell how each place is."""
        return [self.teller.status(place) for place in self._places]

    def replay(self) -> RepairReport:
        """See `MirrorLayer.replay`."""
        with self.keeper.turn:
            self.keeper.probe()
            return self._repair.replay()

    def repair(
        self, compare: Compare, extras: Extras, report: RepairReport | None, *, dry_run: bool
    ) -> RepairReport:
        """See `MirrorLayer.repair`."""
        with self.keeper.turn:
            if dry_run:
                only_look = Repair(self.reads, self.changes, dry_run=True)
                return only_look.everything(compare, extras, report)
            self.replay()
            return self._repair.everything(compare, extras, report)

    def adopt(self, place: Place, report: RepairReport | None, *, create: bool) -> RepairReport:
        """See `MirrorLayer.adopt`."""
        with self.keeper.turn:
            self.keeper.adopt(place, create=create)
            return self._repair.fill(report)

    def reap(self, older_than: float) -> int:
        """Remove what dead writers left at the places that are up."""
        reaped = 0
        for place in self._places:
            if place.usable:
                try:
                    reaped += place.call(lambda backend: backend.reap(older_than))
                except BackendError as error:
                    logger.warning("%s: %s", place, error)
        return reaped

    def quota(self) -> Quota:
        """Return the figures of the place with the least room."""
        found = []
        for place in self._places:
            if place.usable:
                try:
                    found.append(place.call(lambda backend: backend.quota()))
                except BackendError as error:
                    logger.info("%s: %s", place, error)
        known = [quota for quota in found if quota.limit >= 0 and quota.usage >= 0]
        return min(known, key=lambda quota: quota.limit - quota.usage, default=Quota())
