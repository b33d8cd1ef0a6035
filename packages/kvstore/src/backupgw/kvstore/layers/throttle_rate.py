"""A rate that many share, and a timetable of rates.

`Pace` hands out turns in the order in which they were asked for: each caller's bytes are due once
the rate has paid for all bytes before them. Nobody waits while holding the lock, and nobody waits
past a change of the timetable without looking at it again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from .options import OptionInvalid, size

BURST = 0.1
"""Seconds' worth of bytes that may pass at once after a pause."""

_LONGEST_NAP = 60.0
"""Seconds after which a waiting thread looks at the rate again, should a clock have been set."""

_ENTRY = re.compile(r"(?:(\w+)-)?(\d{1,2}):(\d{2})\s*,\s*(.+)\Z", re.ASCII)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Timetable:
    """Rates by the time of the week.

    Attributes:
        entries: (minute of the week from Monday 0:00, bytes per second or None for no limit),
            sorted; a single one at minute 0 holds always.
    """

    entries: tuple[tuple[int, float | None], ...]

    def at(self, moment: datetime) -> tuple[float | None, float]:
        """Return the rate that holds at a local time, and in how many seconds it may change.

        Where the clock is set between summer and winter time, the change comes at the right hour
        of the clock.
        """
        minute = moment.weekday() * 1440 + moment.hour * 60 + moment.minute
        current = self.entries[-1][1]  # last week's
        upcoming = self.entries[0][0] + _WEEK
        for start, rate in self.entries:
            if start > minute:
                upcoming = start
                break
            current = rate
        into = timedelta(seconds=moment.second, microseconds=moment.microsecond)
        return current, (timedelta(minutes=upcoming - minute) - into).total_seconds()


def timetable(option: str, value: object) -> Timetable:
    """Read a rate in bytes per second, or rclone's timetable.

    A rate is a number or text such as "20 MB/s", "512k" (KiB per second, as rclone has it), "off"
    for no limit. A timetable is "08:00,512k 19:00,10M 23:00,off", with days where they matter:
    "Mon-08:00,512k Sat-00:00,off". Times are local. An entry without a day holds on every day.
    Before the first one, the last one of the week before holds.

    Raises:
        OptionInvalid: it is neither.
    """
    if isinstance(value, str) and "," in value:
        entries: dict[int, float | None] = {}
        for part in re.split(r"\s+(?=(?:\w+-)?\d{1,2}:\d{2}\s*,)", value.strip()):
            match = _ENTRY.match(part)
            hours, minutes = (int(match[2]), int(match[3])) if match else (24, 0)
            day = match[1].lower()[:3] if match and match[1] else None
            if match is None or hours > 23 or minutes > 59 or (day and day not in _DAYS):
                raise OptionInvalid(
                    option,
                    f"{part!r} is no entry of a timetable; write "
                    '"08:00,512k 19:00,10M 23:00,off", with days as in "Sat-08:00,off"',
                )
            for number in range(7) if day is None else [_DAYS.index(day)]:
                entries[number * 1440 + hours * 60 + minutes] = _rate(option, match[4])
        return Timetable(tuple(sorted(entries.items())))
    return Timetable(((0, _rate(option, value)),))


def _rate(option: str, value: object) -> float | None:
    if isinstance(value, str):
        value = value.strip()
        if value.lower() == "off":
            return None
        value = re.sub(r"\s*(?:/\s*s|ps)\Z", "", value)
    return float(size(option, value, least=1))


class Pace:
    """Makes callers wait so that all together keep to a rate.

    Args:
        rates: which rate holds when.
        clock: monotonic seconds.
        now: local time.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        rates: Timetable,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._asked = 0.0
        """Bytes that were asked for altogether."""
        self._paid = 0.0
        """Bytes that the rate has paid for altogether, at most BURST beyond those asked for."""
        self._looked = clock()
        self._rate, upcoming = rates.at(now())
        self._changes = self._looked + upcoming

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit now."""
        with self._lock:
            self._pay()
            return self._rate is None

    @property
    def piece(self) -> int:
        """Bytes to move at a time, so that what comes out is even: a tenth of a second's worth."""
        rate = self._rate
        return 1 << 20 if rate is None else min(max(int(rate * BURST), 1 << 10), 1 << 20)

    def take(self, count: int) -> None:
        """Wait until `count` bytes may have passed, in turn."""
        if count == 0:
            return
        with self._lock:
            self._pay()
            self._asked += count
            turn = self._asked
            wait = self._wait(turn)
        while wait > 0:
            self._sleep(wait)
            with self._lock:
                self._pay()
                wait = self._wait(turn)

    def _pay(self) -> None:
        """Credit the time since the last look, piece by piece where the rate changed meanwhile."""
        clock = self._clock()
        while True:
            until = min(clock, self._changes)
            if self._rate is None:
                self._paid = self._asked
            else:
                self._paid += max(until - self._looked, 0.0) * self._rate
                self._paid = min(self._paid, self._asked + self._rate * BURST)
            self._looked = until
            if clock < self._changes:
                return
            # The clock on the wall decides, not this process's: it may have been set.
            rate, upcoming = self._rates.at(self._now() - timedelta(seconds=clock - until))
            if upcoming <= 0:
                return
            self._rate = rate
            self._changes = until + upcoming

    def _wait(self, turn: float) -> float:
        if self._rate is None or self._paid >= turn:
            return 0.0
        due = (turn - self._paid) / self._rate
        return min(due, max(self._changes - self._looked, 0.001), _LONGEST_NAP)
