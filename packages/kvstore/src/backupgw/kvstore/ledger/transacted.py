"""What every ledger does within its transactions, wherever they run.

A ledger is a session, which runs steps in transactions and knows the locks, and this: the steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol, Self, TypeVar

from .accounts import Account
from .base import Lookup
from .claiming import Claiming
from .counting import Counting
from .errors import LedgerError, ReservationEnded
from .held import NO_NEEDS, HeldBooks, Needs
from .records import (
    NOTHING,
    Amount,
    Change,
    Effect,
    Limit,
    NewItem,
    Repair,
    Report,
    Reservation,
    Usage,
)

logger = logging.getLogger(__name__)

_PAGE = 500
"""Accounts read in one transaction by `usages`."""

T = TypeVar("T")
B = TypeVar("B", bound=HeldBooks)


class Locks(Protocol):
    """Who may change or count what, among all threads and processes of a ledger."""

    def changing(
        self, place: str, names: Iterable[str], patience: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold names exclusively, waiting for them, for about `patience` seconds at most.

        Raises:
            NameBusy: it was in vain.
        """

    def trying(self, place: str, name: str) -> AbstractContextManager[bool]:
        """Hold a name if nobody else does; yields whether that is so."""

    def counting(self, place: str) -> AbstractContextManager[None]:
        """Be the only one who counts a place, and let all changes know."""

    def listing(self, place: str, folder: str) -> AbstractContextManager[None]:
        """Wait until no change beneath a folder is under way, and keep new ones waiting."""


class Session(Protocol[B]):
    """Runs steps in transactions, from any thread."""

    @property
    def locks(self) -> Locks:
        """Raises LedgerError when the ledger is not open."""

    def open(self) -> None:
        """Begin; what dead processes have reserved is given back."""

    def close(self) -> None:
        """Write down what is pending and end the session on record."""

    def number(self) -> int:
        """Return, within a step, a number that nobody ever had."""

    def run(self, work: Callable[[B], T], needs: Needs = NO_NEEDS) -> T:
        """Do the work in a transaction and return what it returned.

        Raises:
            LedgerError: the transaction failed; nothing happened.
            BackendError: the work raised it.
        """

    def told_late(self, place: str, effects: Sequence[Effect]) -> Callable[[B], object]:
        """Return the work that tells the books what has happened without an intent, to names that
        this thread holds; it may be done when it holds them no more."""

    def post(
        self, work: Callable[[B], object], needs: Needs = NO_NEEDS, *, linger: bool = False
    ) -> None:
        """Have the work done now, or soon if it may `linger`; it is remembered while transactions
        fail."""


class TransactedLedger(Claiming[B], Counting[B]):
    """A `Ledger` over a session; each kind of session has its subclass.

    Args:
        session: neither open nor used by anybody else.
        lease: seconds that a reservation stays without being renewed.
    """

    def __init__(self, session: Session[B], lease: float) -> None:
        self.lease = lease
        self._session = session

    def open(self) -> None:
        self._session.open()

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- limits and accounts

    def set_limit(self, scope: str, limit: Limit) -> None:
        needs = Needs([scope], durable=True)
        self._session.run(lambda books: books.set_limit(scope, limit), needs)

    def usage(self, scope: str) -> Usage:
        def work(books: B) -> Usage:
            books.reclaim()
            return books.account(scope).usage()

        return self._session.run(work, Needs([scope]))

    def usages(self) -> Iterator[Usage]:
        self._session.run(lambda books: books.reclaim())
        after = ""
        while page := self._session.run(partial(_accounts, after=after)):
            for account in page:
                yield account.usage()
            after = page[-1].scope

    # -- bodies on their way in

    def reserve(
        self,
        place: str,
        scopes: Sequence[str],
        amount: Amount,
        *,
        wanted: Amount | None = None,
        fitting: Amount | None = None,
        parked: float | None = None,
    ) -> Reservation:
        def work(books: B) -> Reservation:
            if fitting is not None:
                books.check(dict.fromkeys(scopes, fitting))
            held = amount if wanted is None else books.step(scopes, amount, wanted)
            deadline = books.now + self.lease
            reservation = Reservation(self._session.number(), place, tuple(scopes), held, deadline)
            books.hold(reservation, known={})
            if parked is not None:
                reservation.deadline = books.now + parked
                reservation.portable = True
                books.park(reservation.number, reservation.deadline)
            return reservation

        return self._session.run(work, Needs(scopes, durable=parked is not None))

    def grow(
        self, reservation: Reservation, amount: Amount, *, wanted: Amount | None = None
    ) -> None:
        def work(books: B) -> tuple[Amount, float]:
            known = books.holds_of(reservation.number)
            held = amount
            if wanted is not None:
                old = reservation.held if known else NOTHING
                held = old + books.step(reservation.scopes, amount - old, wanted - old)
            deadline = books.now + self.lease
            books.hold(replace(reservation, held=held, deadline=deadline), known=known)
            return held, deadline

        needs = Needs(reservation.scopes, [reservation.number])
        reservation.held, reservation.deadline = self._session.run(work, needs)

    def park(self, reservation: Reservation | int, lease: float) -> None:
        number = reservation if isinstance(reservation, int) else reservation.number

        def work(books: B) -> float:
            books.park(number, books.now + lease)
            return books.now + lease

        deadline = self._session.run(work, Needs(numbers=[number], durable=True))
        if isinstance(reservation, Reservation):
            reservation.deadline, reservation.portable = deadline, True

    def adopt(
        self,
        number: int,
        place: str,
        scopes: Sequence[str],
        amount: Amount,
        *,
        anew: bool = True,
    ) -> Reservation:
        def work(books: B) -> Reservation:
            known = books.holds_of(number)
            if not known and not anew:
                raise ReservationEnded(f"reservation {number} has ended")
            deadline = books.now + self.lease
            reservation = Reservation(number, place, tuple(scopes), amount, deadline)
            books.hold(reservation, known=known)
            return reservation

        return self._session.run(work, Needs(scopes, [number]))

    # -- changes of the place

    def changing(self, place: str, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._session.locks.changing(place, names)

    def intend(
        self,
        place: str,
        effects: Sequence[Effect],
        reservation: Reservation | int | None = None,
        *,
        atomic: bool = True,
    ) -> Change:
        holds = _holds_of(effects, atomic=atomic)
        room = reservation.number if isinstance(reservation, Reservation) else reservation

        def work(books: B) -> Change:
            for effect in effects:
                for number in books.open_changes(place, effect.name):
                    books.end(number, effect.before)
            numbers = [self._session.number() for _ in effects]
            known: Mapping[str, Amount] = {}
            if room is not None:
                known = books.holds_of(room)
                if known or isinstance(reservation, Reservation):
                    numbers[0] = room
            deadline = books.now + self.lease
            change = Change(place, tuple(numbers), tuple(effects), holds)
            books.hold_change(change, deadline, known=known, atomic=atomic)
            return change

        numbers = [] if room is None else [room]
        needs = Needs(numbers=numbers, place=place, effects=effects, claimed=True, durable=True)
        return self._session.run(work, needs)

    def settle(self, change: Change) -> None:
        # What only adds may stay reserved for a moment more; what makes room may not.
        adds = all(
            effect.after.bytes >= effect.before.bytes
            and effect.after.objects >= effect.before.objects
            for effect in change.effects
        )
        self._end(change, [effect.after for effect in change.effects], linger=adds)

    def resolve(self, change: Change, found: Sequence[Amount]) -> None:
        self._end(change, found)

    def _end(self, change: Change, found: Sequence[Amount], *, linger: bool = False) -> None:
        needs = Needs(numbers=change.numbers, place=change.place, effects=change.effects)
        self._session.post(lambda books: books.end_change(change, found), needs, linger=linger)

    def begin_new(
        self,
        place: str,  # noqa: ARG002 - the signature is Ledger's
        name: str,  # noqa: ARG002
        scopes: tuple[str, ...],  # noqa: ARG002
        size: int,  # noqa: ARG002
        missing: Callable[[str], bool],  # noqa: ARG002
        *,
        at_once: bool = False,  # noqa: ARG002
        file: int = 0,  # noqa: ARG002
    ) -> NewItem | None:
        return None  # there is no way that is shorter

    def end_new(self, item: NewItem, *, settled: bool) -> None:  # noqa: ARG002 - see above
        raise LedgerError(f"{item} was not begun by this ledger, which has no short way")

    def free(self, place: str, name: str, generation: int) -> None:
        def work(books: B) -> None:
            after = books.effect_of(generation, place, name)
            if after is not None:
                books.end(generation, after)

        self._session.post(work, Needs(numbers=[generation]))

    def release(self, held: Reservation | Change | int) -> None:
        numbers: tuple[int, ...]
        if isinstance(held, Change):
            numbers = held.numbers
        else:
            numbers = (held if isinstance(held, int) else held.number,)

        def work(books: B) -> None:
            for number in numbers:
                books.end(number)

        self._session.post(work, Needs(numbers=numbers))

    def amend(self, place: str, effects: Sequence[Effect]) -> None:
        needs = Needs([scope for effect in effects for scope in effect.scopes], durable=True)
        self._session.post(self._session.told_late(place, effects), needs)

    # -- after a crash

    def recover(self, place: str, lookup: Lookup) -> Report:
        def orphans(books: B) -> tuple[int, float, list[tuple[int, str]]]:
            books.reclaim()
            return books.released, books.now, books.orphans(place)

        report = Report(place)
        report.released, listed, open_changes = self._session.run(orphans)
        for number, name in open_changes:
            with self._session.locks.trying(place, name) as free:
                if not free:
                    continue  # somebody is changing the name, and settles this on the way
                needs = Needs(numbers=[number], place=place, names=[name], claimed=True)
                end = partial(_end_orphan, number=number, found=lookup(name), listed=listed)
                repair = self._session.run(end, needs)
            if repair is not None:
                report.repairs.append(repair)
        return report

    def distrust(self, place: str) -> None:
        self._session.run(lambda books: books.mark_stale(place), Needs(durable=True))

    def forget(self, place: str) -> None:
        self._session.run(lambda books: books.forget(place), Needs(durable=True))


def _accounts(books: HeldBooks, after: str) -> list[Account]:
    return books.all_accounts(after, _PAGE)


def _end_orphan(books: HeldBooks, number: int, found: Amount, listed: float) -> Repair | None:
    return books.end_orphan(number, found, listed)


def _holds_of(effects: Sequence[Effect], *, atomic: bool) -> tuple[Mapping[str, Amount], ...]:
    """Return what each effect of a change holds in which scopes.

    What happens as one needs no more room than its sum, and its first effect holds that. Otherwise
    one effect may happen without the others, and each holds what it adds.
    """
    if not atomic or len(effects) == 1:
        return tuple(
            dict.fromkeys(effect.scopes, (effect.after - effect.before).at_least_nothing())
            for effect in effects
        )
    sums: dict[str, Amount] = {}
    for effect in effects:
        for scope in effect.scopes:
            sums[scope] = sums.get(scope, NOTHING) + effect.after - effect.before
    first = {scope: amount.at_least_nothing() for scope, amount in sums.items()}
    return (first, *({} for _ in effects[1:]))
