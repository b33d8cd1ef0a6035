"""Telling whoever runs a mirror how its places are, whenever that changes."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from ..backends.errors import BackendError
from .mirror_journal import Journal
from .mirror_places import Place, PlaceStatus

logger = logging.getLogger(__name__)

OnChange = Callable[[PlaceStatus], None]
"""Gets a place's status at the opening, and whenever anything in it has changed. Called on
whatever thread noticed it; must not wait."""


class Teller:
    """Tells each status once, in the order in which the places came to it.

    Args:
        on_change: None where nobody wants to know.
    """

    def __init__(
        self, places: Sequence[Place], journal: Journal, on_change: OnChange | None
    ) -> None:
        self._places = places
        self._journal = journal
        self._on_change = on_change
        self._lock = threading.RLock()  # who listens may cause what there is to tell
        self._told: dict[Place, PlaceStatus] = {}

    def status(self, place: Place) -> PlaceStatus:
        """Return how a place is. Raises BackendError where the journal cannot be read."""
        return _status(place, self._journal.count_missed(place.label))

    def tell_all(self) -> None:
        """Tell what has changed at any place."""
        for place in self._places:
            self.tell(place)

    def tell(self, place: Place) -> None:
        """Tell what has changed at a place. Never raises: a mirror works without listeners."""
        if self._on_change is None:
            return
        with self._lock:
            before = self._told.get(place)
            try:
                status = self.status(place)
            except BackendError as error:
                logger.warning("%s: how much it missed is not known: %s", place, error)
                status = _status(place, before.missed if before is not None else 0)
            if before is not None and dataclasses.replace(before, since=status.since) == status:
                return
            self._told[place] = status
            try:
                self._on_change(status)
            except Exception:  # a listener is anybody's code, and the mirror has to go on
                logger.exception("%s: telling its state failed", place)


def _status(place: Place, missed: int) -> PlaceStatus:
    return PlaceStatus(
        place.label,
        repr(place.backend),
        place.state,
        place.since,
        place.reason,
        missed,
        place.trusted,
    )
