"""The books of one transaction: accounts, what may be added to them, and when alarms are due.

Nothing here waits or reads a clock: a `Books` is filled from the state, worked on and written back
by the ledger, within one transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import LimitExceeded
from .records import NOTHING, UNLIMITED, Alarm, Amount, Limit, Measure

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
    """A scope within a transaction."""

    scope: str
    limit: Limit = UNLIMITED
    used: Amount = NOTHING
    reserved: Amount = NOTHING
    raised: frozenset[str] = frozenset()
    """The levels whose alarm was raised and not cleared."""
    dirty: bool = False

    def refusal(self, more: Amount) -> LimitExceeded | None:
        """Return why `more` may not be added, or None when it may."""
        total = self.used.at_least_nothing() + self.reserved + more
        hard_bytes, hard_objects = self.limit.hard_bytes, self.limit.hard_objects
        if more.bytes > 0 and hard_bytes is not None and total.bytes > hard_bytes:
            return self._refusal(Measure.BYTES, more.bytes)
        if more.objects > 0 and hard_objects is not None and total.objects > hard_objects:
            return self._refusal(Measure.OBJECTS, more.objects)
        return None

    def _refusal(self, measure: Measure, asked: int) -> LimitExceeded:
        return LimitExceeded(
            self.scope,
            measure,
            limit=self.limit.hard(measure) or 0,
            used=_count(self.used.at_least_nothing(), measure),
            reserved=_count(self.reserved, measure),
            asked=asked,
        )

    def reserve(self, more: Amount) -> None:
        self.reserved += more
        self.dirty = True

    def use(self, more: Amount) -> None:
        # May fall below nothing when an item leaves that came behind the ledger's back. That is
        # kept, so that the places' tallies add up, but it gives nobody more room.
        self.used += more
        self.dirty = True

    def alarms(self, levels: Levels) -> list[Alarm]:
        """Return the alarms that are due now, and remember them as raised or cleared."""
        if self.limit == UNLIMITED and not self.raised:
            return []
        alarms = []
        raised = set()
        for measure in Measure:
            used = _count(self.used, measure)
            for level, value, limit in _levels(self.limit, measure, levels):
                key = f"{measure}:{'soft' if level is None else level}"
                if used >= value > 0 or (key in self.raised and used >= value - limit):
                    raised.add(key)
                if (key in raised) != (key in self.raised):
                    cleared = key in self.raised
                    alarms.append(Alarm(self.scope, measure, level, value, used, cleared))
        if raised != self.raised:
            self.raised = frozenset(raised)
            self.dirty = True
        return alarms


def _count(amount: Amount, measure: Measure) -> int:
    return amount.bytes if measure is Measure.BYTES else amount.objects


def _levels(
    limit: Limit, measure: Measure, levels: Levels
) -> Iterable[tuple[float | None, int, int]]:
    """Yield (level, where it lies, how far below it is cleared)."""
    soft, hard = limit.soft(measure), limit.hard(measure)
    if soft is not None:
        yield None, soft, int(soft * levels.hysteresis)
    if hard is not None:
        for fraction in levels.fractions:
            yield fraction, int(hard * fraction), int(hard * levels.hysteresis)


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

    def accounts(self, scopes: Sequence[str]) -> list[Account]:
        missing = [scope for scope in scopes if scope not in self._accounts]
        if missing:
            for account in self.load(missing):
                self._accounts[account.scope] = account
            for scope in missing:
                self._accounts.setdefault(scope, Account(scope))
        return [self._accounts[scope] for scope in scopes]

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
        accounts = self.accounts(list(more))
        self.check(more)
        for account in accounts:
            account.reserve(more[account.scope])

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
        for account in self.accounts(list(more)):
            refused = account.refusal(more[account.scope])
            if refused is not None:
                return refused
        return None

    def step(self, scopes: Sequence[str], more: Amount, wanted: Amount) -> Amount:
        """Return how much to hold where `more` is needed and `wanted` would save trips."""
        far = Amount(wanted.bytes * FAR_AWAY, wanted.objects)
        near = any(account.refusal(far) is not None for account in self.accounts(scopes))
        return more if near else wanted
