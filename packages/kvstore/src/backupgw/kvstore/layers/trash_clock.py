"""The time as the trash believes it: no jump of the clock may empty the trash early.

The latest time that any process saw is kept in the place, written again at most once an hour.
From that:

- a clock that went backwards: what is deleted now expires `keep` after the latest time seen, not
  after the wrong one;
- a clock that jumped forwards: a time that lies further after the latest one than half of `keep`
  is not believed. Expiry then refuses until an operator says that the time is right; so whatever
  the clock does at once, everything stays for at least half of its time.

A machine that was off for longer than half of `keep` looks the same, and needs the same word.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

from ..backends.base import Backend
from ..backends.errors import BackendError, ObjectNotFound
from ..names import KernelPath
from .trash_names import ROOT

logger = logging.getLogger(__name__)

CLOCK = KernelPath(f"{ROOT}/clock")

EARLIEST = 1_767_225_600.0
"""2026-01-01: no time before this program was written is believed."""

_WRITE_AGAIN = 3600.0
_LEAST_JUMP = 3600.0


class ClockDoubted(BackendError):
    """The time is so far after the latest that was seen that nothing is removed by it."""


class TrashClock:
    """The trash's time in one process.

    Args:
        place: holds the latest time seen.
        keep: seconds that the trash keeps things.
        clock: seconds since the epoch.
    """

    def __init__(self, place: Backend, keep: float, clock: Callable[[], float]) -> None:
        self._place = place
        self._jump = max(keep / 2, _LEAST_JUMP)
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: float | None = None

    def now(self) -> float:
        """Return seconds since the epoch as the clock has them, believed or not."""
        return self._clock()

    def latest(self) -> float:
        """Return the later of now and the latest time seen: never less than before.

        What is deleted counts from here. Notes the time, now and then.

        Raises:
            BackendError: the place could not be asked; only before the first answer.
        """
        now = self._clock()
        with self._lock:
            if self._latest is None:
                try:
                    self._latest = self._read() or 0.0
                except ClockDoubted as error:
                    logger.warning("%s", error)
                    self._latest = EARLIEST
            if now - self._latest > _WRITE_AGAIN and self._plausible(now):
                self._note(now)
            return max(now, self._latest, EARLIEST)

    def believed(self, *, trusted: bool = False) -> float:
        """Return the time by which things may be removed, and note it.

        Args:
            trusted: an operator says that the clock is right.

        Raises:
            ClockDoubted: it may have jumped.
        """
        now = self._clock()
        with self._lock:
            if trusted:
                self._note(now)
                return now
            seen = self._read()
            self._latest = max(seen or 0.0, self._latest or 0.0)
            if not self._plausible(now):
                raise ClockDoubted(
                    f"the clock says {_text(now)}, and the trash last saw {_text(self._latest)}: "
                    "nothing is removed until somebody confirms that the clock is right"
                )
            if now > self._latest:
                self._note(now)
            # Nobody noted the time when what is here was deleted: it counts from the next call.
            return now if seen is not None else EARLIEST

    def _plausible(self, now: float) -> bool:
        """Whether so much time may have passed; anything may where none was ever seen."""
        return not self._latest or now - self._latest <= self._jump

    def _note(self, now: float) -> None:
        """Note the time. Where that fails, on a full disk say, work goes on: expiry makes room."""
        if now < EARLIEST:
            return
        try:
            self._place.store(CLOCK, json.dumps({"latest": now}).encode())
            self._latest = now
        except BackendError as error:
            logger.warning("the trash could not note the time: %s", error)

    def _read(self) -> float | None:
        try:
            return float(json.loads(self._place.load(CLOCK))["latest"])
        except ObjectNotFound:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ClockDoubted(
                f"{CLOCK} is damaged: nothing is removed until somebody confirms that the clock "
                "is right"
            ) from error


def _text(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(moment, 0.0), 253402300799.0)))
