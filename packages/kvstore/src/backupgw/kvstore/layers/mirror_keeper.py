"""The thread that brings a mirror's places back and makes them whole again.

A place that is down is tried after a second, then less and less often, up to once a minute. One
that is back gets what it missed; if that fails, it is tried again later, too. Everything else the
keeper does at once when it is woken.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from ..backends.base import Backend
from ..backends.errors import BackendDoesNotExist, BackendError
from .mirror_opening import Opening
from .mirror_places import Place
from .mirror_repair import Compare, Extras, Repair

logger = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
"""Seconds between two attempts with a place that fails."""

INTERVAL = 30.0
"""Seconds after which the journal is looked at even if nobody called: other processes write it."""

_GATHER = 0.05
"""Seconds in which further calls count as the same one."""


class Keeper:
    """Probes, replays and fills, one thing at a time.

    Args:
        after_round: called after each look at all places, every INTERVAL at least.
    """

    def __init__(self, repair: Repair, opening: Opening, after_round: Callable[[], None]) -> None:
        self._after_round = after_round
        self._repair = repair
        self._opening = opening
        self._places = repair.places
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.turn = threading.RLock()
        """Held by whoever repairs: two at a time would only do the same twice."""
        self._due: dict[Place, float] = {}
        self._delay: dict[Place, float] = {}
        self._left: set[Place] = set()
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mirror-keeper", daemon=True)

    def start(self) -> None:
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for the step it is at."""
        self._repair.stopped = True
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(place.patience for place in self._places))

    def wake(self) -> None:
        """Something has changed: a place failed, or missed something."""
        self._wake.set()

    def probe(self) -> None:
        """Try all places that are down, now."""
        with self.turn:
            for place in self._places:
                if not place.usable:
                    self._try(place)

    def adopt(self, place: Place, *, create: bool) -> None:
        """Take a place as it is now into the mirror, to be filled.

        Args:
            create: make it where it does not exist.

        Raises:
            BackendError: it cannot be used; BackendDoesNotExist.
        """

        def mark(backend: Backend) -> None:
            self._opening.adopt(place, backend)

        with self.turn:
            try:
                place.bring_up(mark)
            except BackendDoesNotExist:
                if not create:
                    raise
                place.backend.create()
                place.bring_up(mark)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._time_left())
            if self._stop.wait(_GATHER):
                return
            self._wake.clear()
            if self._stop.is_set():
                return  # its wake-up may just have been cleared
            try:
                with self.turn:
                    self._round()
            except BackendError as error:
                logger.warning("the mirror: %s", error)
            except Exception:  # the thread must live on: without it no place ever comes back
                logger.exception("the mirror's keeper")
            self._after_round()

    def _time_left(self) -> float:
        waiting = [due - time.monotonic() for due in self._due.values()]
        return max(0.0, min([INTERVAL, *waiting]))

    def _round(self) -> None:
        if self._looked + INTERVAL <= time.monotonic():
            self._look_for_another_journal()
        for place in self._places:
            if self._due.get(place, 0.0) > time.monotonic():
                continue
            if place.usable or self._try(place):
                self._mend(place)
        self._repair.resolve_intents()
        if self._repair.unsure() and all(place.usable for place in self._places):
            self._repair.everything(Compare.SIZE, Extras.COPY)

    def _look_for_another_journal(self) -> None:
        for place in self._places:
            if place.usable:
                try:
                    self._opening.let_go(place)
                except BackendError as error:
                    logger.info("%s: %s", place, error)
        self._looked = time.monotonic()

    def _try(self, place: Place) -> bool:
        try:
            place.bring_up(lambda backend: self._opening.check(place, backend))
        except BackendError as error:
            if place.reason != str(error):
                logger.warning("%s stays down: %s", place, error)
                place.reason = str(error)
            self._later(place)
            return False
        return True

    def _mend(self, place: Place) -> None:
        """Give a place what it has not got."""
        try:
            if not (place.trusted or place in self._left) and self._repair.fill().extra:
                logger.warning(
                    "%s holds items that the mirror does not; it is not read from until a repair "
                    "is told what to do with them",
                    place,
                )
                self._left.add(place)
            report = self._repair.replay(place)
        except BackendError as error:
            logger.warning("%s: %s", place, error)
            self._later(place)
            return
        if report.failed:
            self._later(place)
        else:
            self._due.pop(place, None)
            self._delay.pop(place, None)

    def _later(self, place: Place) -> None:
        delay = self._delay.get(place, FIRST_DELAY)
        self._due[place] = time.monotonic() + delay * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._delay[place] = min(delay * 2, LONGEST_DELAY)
