"""Which backups a policy keeps, counted as restic counts them.

Newest first, each rule looks at the hour, day, ISO week, month or year a backup is of: the first
that it sees of each is kept, until the rule has kept as many as it may. The oldest backup of all is
kept too while a rule still may keep one, so that the reach grows to what was asked for. A backup
stays if any rule keeps it.
https://restic.readthedocs.io/en/stable/060_forget.html#removing-snapshots-according-to-a-policy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

ALL = -1
"""As a count: no limit."""

_PERIODS: tuple[tuple[str, Callable[[datetime, int], object]], ...] = (
    ("last", lambda _, number: number),
    ("hourly", lambda time, _: (time.year, time.month, time.day, time.hour)),
    ("daily", lambda time, _: (time.year, time.month, time.day)),
    ("weekly", lambda time, _: time.isocalendar()[:2]),
    ("monthly", lambda time, _: (time.year, time.month)),
    ("yearly", lambda time, _: time.year),
)


@dataclass(frozen=True, slots=True)
class Keep:
    """How many backups are kept: of the last ones, and one for each of that many hours, …

    0 means that the rule keeps none, ALL that it keeps one for each there is.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __bool__(self) -> bool:
        """Whether any backup would be kept: a policy that keeps nothing is a mistake."""
        return any(count for _, count in self.rules())

    def rules(self) -> list[tuple[str, int]]:
        """Return the rules by name, in the order in which they are told."""
        return [(name, int(getattr(self, name))) for name, _ in _PERIODS]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup.

    Attributes:
        index: into the times that were given.
        reasons: the rules that keep it; none if it goes.
    """

    index: int
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def decide(times: Sequence[datetime], keep: Keep) -> list[Decision]:
    """Say for each of several backups whether it stays, newest first.

    Args:
        times: when each was made, with the time zone whose hours and days count.

    Raises:
        ValueError: the policy would keep none.
    """
    if not keep:
        raise ValueError("the policy keeps no backup at all")
    left = dict(keep.rules())
    seen: dict[str, object] = {}
    order = sorted(range(len(times)), key=lambda index: times[index], reverse=True)
    decisions = []
    for number, index in enumerate(order):
        reasons = []
        for name, period in _PERIODS:
            if left[name] == 0:
                continue
            value = period(times[index], number)
            oldest = number == len(order) - 1
            if seen.get(name) == value and not oldest:
                continue
            seen[name] = value
            if left[name] != ALL:
                left[name] -= 1
            reasons.append(name)
        decisions.append(Decision(index, tuple(reasons)))
    return decisions
