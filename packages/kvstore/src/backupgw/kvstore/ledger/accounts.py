"""The books of one transaction: accounts, what may be added to them, and when alarms are due.

Nothing here waits or reads a clock: a `Books` is filled from the state, worked on and written back
by the ledger, within one transaction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import LimitExceeded
from .records import UNLIMITED, Alarm, Amount, Limit, Measure, Usage

FAR_AWAY = 16
"""A step may be larger than needed while so many of its size have room in every scope: near a
limit, a writer holds what it has received and no more."""


@dataclass(frozen=True, slots=True)
class Levels:
    """When alarms are raised.

    Args:
        fractions: of the hard limit; the soft limit is a level of its own.
        hysteresis: a level is cleared when usage is so much of the limit below it.
    """

    fractions: tuple[float, ...] = (0.8, 0.95, 1.0)
    hysteresis: float = 0.05


@dataclass(slots=True)
class Account:
    """A scope within a transaction. Plain numbers: there are many sums to a transaction."""

    scope: str
    limit: Limit = UNLIMITED
    used_bytes: int = 0
    used_objects: int = 0
    reserved_bytes: int = 0
    reserved_objects: int = 0
    raised: frozenset[str] = frozenset()
    """The levels whose alarm was raised and not cleared."""
    dirty: bool = False
    calm_bytes: float = -1
    calm_objects: float = -1
    """While used and reserved together are not above these, nothing is refused and no alarm is due;
    -1 where nobody has looked."""
    _watched: _Watch | None = None

    def refusal(self, more: Amount) -> LimitExceeded | None:
        """Return why `more` may not be added, or None when it may."""
        asked, objects = more
        limit = self.limit.hard_bytes
        if asked > 0 and limit is not None:
            used = max(0, self.used_bytes)
            if used + self.reserved_bytes + asked > limit:
                return LimitExceeded(
                    self.scope,
                    Measure.BYTES,
                    limit=limit,
                    used=used,
                    reserved=self.reserved_bytes,
                    asked=asked,
                )
        limit = self.limit.hard_objects
        if objects > 0 and limit is not None:
            used = max(0, self.used_objects)
            if used + self.reserved_objects + objects > limit:
                return LimitExceeded(
                    self.scope,
                    Measure.OBJECTS,
                    limit=limit,
                    used=used,
                    reserved=self.reserved_objects,
                    asked=objects,
                )
        return None

    def reserve(self, more: Amount) -> None:
        self.reserved_bytes += more[0]
        self.reserved_objects += more[1]
        self.dirty = True

    def give_back(self, held: Amount) -> None:
        self.reserved_bytes -= held[0]
        self.reserved_objects -= held[1]
        self.dirty = True

    def use(self, more: Amount) -> None:
        # May fall below nothing when an item leaves that came behind the ledger's back. That is
        # kept, so that the places' tallies add up, but it gives nobody more room.
        self.used_bytes += more[0]
        self.used_objects += more[1]
        self.dirty = True

    def usage(self) -> Usage:
        return Usage(
            self.scope,
            self.limit,
            Amount(self.used_bytes, self.used_objects),
            Amount(self.reserved_bytes, self.reserved_objects),
        )

    def alarms(self, levels: Levels) -> list[Alarm]:
        """Return the alarms that are due now, and remember them as raised or cleared."""
        watched = self._watched
        if watched is None or watched.limit is not self.limit or watched.levels is not levels:
            self._watched = watched = _watch(self.limit, levels)
            self.calm_bytes = -1
        if (
            not self.raised
            and self.used_bytes < watched.lowest_bytes
            and self.used_objects < watched.lowest_objects
        ):
            if self.calm_bytes < 0:
                self._calm(watched)
            return []
        alarms = []
        raised = set()
        for mark in watched.marks:
            used = self.used_bytes if mark.measure is Measure.BYTES else self.used_objects
            known = mark.key in self.raised
            if used >= mark.value or (known and used >= mark.clear):
                raised.add(mark.key)
            if (mark.key in raised) != known:
                alarms.append(
                    Alarm(self.scope, mark.measure, mark.level, mark.value, used, cleared=known)
                )
        if raised != self.raised:
            self.raised = frozenset(raised)
            self.dirty = True
        self._calm(watched)
        return alarms

    def _calm(self, watched: _Watch) -> None:
        ahead = [mark for mark in watched.marks if mark.key not in self.raised]
        limit = self.limit.hard_bytes
        values = [mark.value - 1 for mark in ahead if mark.measure is Measure.BYTES]
        self.calm_bytes = min([math.inf if limit is None else limit, *values])
        limit = self.limit.hard_objects
        values = [mark.value - 1 for mark in ahead if mark.measure is Measure.OBJECTS]
        self.calm_objects = min([math.inf if limit is None else limit, *values])


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where an alarm is raised, and below what it is cleared."""

    key: str
    measure: Measure
    level: float | None
    value: int
    clear: int


@dataclass(frozen=True, slots=True)
class _Watch:
    """The marks of an account, and the lowest values of bytes and of objects among them."""

    limit: Limit
    levels: Levels
    marks: tuple[_Mark, ...]
    lowest_bytes: float
    lowest_objects: float


@lru_cache(maxsize=1024)
def _watch(limit: Limit, levels: Levels) -> _Watch:
    marks = []
    lowest = []
    for measure in (Measure.BYTES, Measure.OBJECTS):
        hard, soft = limit.hard(measure), limit.soft(measure)
        places: list[tuple[float | None, float, int]] = []
        if hard:
            places.extend((level, hard * level, hard) for level in levels.fractions)
        if soft:
            places.append((None, soft, soft))
        for level, value, whole in places:
            key = f"{measure}:{'soft' if level is None else level}"
            clear = value - whole * levels.hysteresis
            marks.append(_Mark(key, measure, level, math.ceil(value), math.ceil(clear)))
        lowest.append(min((value for _, value, _ in places), default=math.inf))
    return _Watch(limit, levels, tuple(marks), *lowest)


class Books(ABC):
    """The accounts that a transaction touches."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._reclaimed = False

    @abstractmethod
    def load(self, scopes: Sequence[str]) -> Iterable[Account]:
        """Read accounts from the state; a scope without one may be left out."""

    @abstractmethod
    def reclaim(self) -> None:
        """Give back what dead writers have reserved."""

    def account(self, scope: str) -> Account:
        return self.accounts((scope,))[0]

    def accounts(self, scopes: Iterable[str]) -> list[Account]:
        known = self._accounts
        missing = [scope for scope in scopes if scope not in known]
        if missing:
            for account in self.load(missing):
                known[account.scope] = account
            for scope in missing:
                if scope not in known:
                    known[scope] = Account(scope)
        return [known[scope] for scope in scopes]

    def touched(self) -> list[Account]:
        """Return the accounts that have to be written back."""
        return [account for account in self._accounts.values() if account.dirty]

    def due(self, levels: Levels) -> list[Alarm]:
        """Return the alarms that this transaction caused."""
        return [alarm for account in self.touched() for alarm in account.alarms(levels)]

    def reserve(self, more: Mapping[str, Amount]) -> None:
        """Add to what is reserved, in all scopes or in none.

        Raises:
            LimitExceeded: nothing was reserved.
        """
        self.check(more)
        for scope, amount in more.items():
            self._accounts[scope].reserve(amount)

    def give_back(self, held: Mapping[str, Amount]) -> None:
        """Take from what is reserved."""
        self.accounts(held)
        for scope, amount in held.items():
            self._accounts[scope].give_back(amount)

    def check(self, more: Mapping[str, Amount]) -> None:
        """Raise LimitExceeded unless `more` has room in all scopes."""
        refused = self._refused(more)
        if refused is not None and not self._reclaimed:
            self._reclaimed = True
            self.reclaim()
            refused = self._refused(more)
        if refused is not None:
            raise refused

    def _refused(self, more: Mapping[str, Amount]) -> LimitExceeded | None:
        self.accounts(more)
        for scope, amount in more.items():
            refused = self._accounts[scope].refusal(amount)
            if refused is not None:
                return refused
        return None

    def step(self, scopes: Sequence[str], more: Amount, wanted: Amount) -> Amount:
        """Return how much to hold where `more` is needed and `wanted` would save trips."""
        far = Amount(wanted.bytes * FAR_AWAY, wanted.objects)
        near = any(account.refusal(far) is not None for account in self.accounts(scopes))
        return more if near else wanted
