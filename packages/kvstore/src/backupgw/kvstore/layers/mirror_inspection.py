"""How the places of a mirror are, found out without changing anything.

For an operator's look beside the gateways that have the mirror open: each place is asked here and
now whether it is there, is the right one, and answers. Nothing is made, marked or repaired.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..backends.base import Backend
from ..backends.errors import BackendDoesNotExist, BackendError
from .mirror_journal import Journal
from .mirror_opening import read_mark, refuse_other
from .mirror_places import CLOSED, Place, PlaceStatus, State


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at a place found.

    Attributes:
        status: `reason` says what is wrong, or will happen to a new place. Its state is `suspect`
            where the right place opens but cannot be listed.
        exists: False where there is nothing at the place's address.
        known: whether the mirror has had it before.
        mark: (mirror, place) of the mark on it; None without one, or where it cannot be read.
        own: whether that mark is this place's own.
    """

    status: PlaceStatus
    exists: bool
    known: bool
    mark: tuple[str, str] | None
    own: bool


def inspect(places: Sequence[Place], path: str) -> list[Found]:
    """Look at all places side by side, each for `patience` seconds at most.

    Args:
        places: of a mirror that this process has not got open.
        path: of its journal, which need not exist.

    Raises:
        BackendError: the journal cannot be read.
    """
    identity, known, missed = "", dict[str, bool](), dict[str, int]()
    if os.path.exists(path):
        with contextlib.closing(Journal(path)) as journal:
            identity, _ = journal.identity()
            known = journal.places()
            missed = {place.label: journal.count_missed(place.label) for place in places}

    def look(place: Place) -> Found:
        return _look(place, identity, known.get(place.label), missed.get(place.label, 0))

    with ThreadPoolExecutor(len(places)) as threads:
        return list(threads.map(look, places))


def _look(place: Place, identity: str, trusted: bool | None, missed: int) -> Found:
    marks: list[tuple[str, str] | None] = []

    def check(backend: Backend) -> None:
        marks.append(read_mark(backend))
        if trusted is not None or marks[0] is not None:
            refuse_other(place, marks[0], identity)

    state, reason, exists = State.UP, "", True
    if trusted is None:
        reason = "new: made and filled when the mirror is opened next"
    try:
        place.bring_up(check)
    except BackendError as error:
        state, reason = State.DOWN, str(error) or type(error).__name__
        exists = not isinstance(error, BackendDoesNotExist)
    else:
        try:
            place.call(lambda backend: next(iter(backend.list("")), None))
        except BackendError as error:
            state, reason = State.SUSPECT, str(error) or type(error).__name__
    finally:
        place.take_down(CLOSED)
        place.shut()
    status = PlaceStatus(
        place.label, repr(place.backend), state, time.time(), reason, missed, bool(trusted)
    )
    mark = marks[0] if marks else None
    return Found(status, exists, trusted is not None, mark, mark == (identity, place.label))
