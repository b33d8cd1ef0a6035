"""The ledger of one machine's processes, in a SQLite file.

How it is exact. All sums change in write transactions, and those are one after the other: SQLite
allows no other. A refusal is decided inside the transaction that would have reserved.

How it is quick. A small item costs one short transaction, its intend, which takes along the settle
of an item before it (`turns`: a settle that only adds may linger for some milliseconds, since what
it will say is on record); a larger body costs one more for each step. None of them waits for the
disk: the log is written but not synced (WAL, synchronous=NORMAL), which holds against SIGKILL,
since what a process has written the kernel has. The threads of a process share transactions and
one connection, since SQLite has one writer at a time anyway; processes wait for each other in the
kernel (`locks`), where SQLite by itself would sleep and poll. There is no row for each item: a
tally for each place and scope, and a row for each write in progress, so the file stays small and
in the cache. `benchmarks/ledger.py` measures what an upload pays.

Considered and left out: a share of the room that each process leases and hands out from memory.
The intent must be on record before the place changes in any case, and the reservation rides on
that; it would save nothing and make every limit a question to all processes.

What survives what.

- SIGKILL, at any point: everything. A file lock tells that the process has died; its reservations
  are given back at the next open or at the first refusal, and its open intents are settled by
  `recover`, exactly.
- Power loss: SQLite's file stays sound, but may have lost the last transactions, always a tail of
  them. So uploads may be missing from the accounts that the place has on disk. Every session is
  recorded, durably, before its first transaction, together with the boot id of the machine; one
  that did not end, of another boot, makes `needs_reconcile` say so. After `close` nothing can be
  lost: the end of the session is written last.
- No room for the ledger: reserve and intend raise LedgerFull, nothing is written. What has
  happened already (settle, release, amend) is kept in memory and written with the next
  transaction that succeeds.
- Fork: no connection is open during a fork, since SQLite's must not cross one. The child starts a
  session of its own; what the parent holds stays the parent's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Self

from ..backends.errors import ObjectNotFound
from .accounts import Levels
from .base import Belongs, Listing, Lookup
from .records import (
    NOTHING,
    Alarm,
    Amount,
    Change,
    Effect,
    Limit,
    Report,
    Reservation,
    Usage,
)
from .sqlite_books import SQLiteBooks
from .sqlite_session import SQLiteSession

logger = logging.getLogger(__name__)

_PAGE = 500
"""Accounts read in one transaction by `usages`."""


class SQLiteLedger:
    """A `Ledger` in the file `path`, which is made where it is missing.

    Args:
        path: on a local file system; beside it lie SQLite's log and index and a file of locks.
        lease: seconds that a reservation stays without being renewed.
        levels: when alarms are raised.
        on_alarm: called with each alarm, once for all processes, by a thread that happens to use
            the ledger; it may use the ledger too. What it raises is logged.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        path: str,
        *,
        lease: float = 300.0,
        levels: Levels | None = None,
        on_alarm: Callable[[Alarm], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.lease = lease
        self._session = SQLiteSession(path, levels or Levels(), on_alarm, clock)

    def __repr__(self) -> str:
        return f"SQLiteLedger({self.path!r})"

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
        def work(books: SQLiteBooks) -> None:
            account = books.account(scope)
            account.limit, account.dirty = limit, True

        self._session.run(work)

    def usage(self, scope: str) -> Usage:
        def work(books: SQLiteBooks) -> Usage:
            books.reclaim()
            return books.account(scope).usage()

        return self._session.run(work)

    def usages(self) -> Iterator[Usage]:
        self._session.run(SQLiteBooks.reclaim)
        after = ""
        while page := self._session.run(partial(SQLiteBooks.all_accounts, after=after, most=_PAGE)):
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
    ) -> Reservation:
        def work(books: SQLiteBooks) -> Reservation:
            if fitting is not None:
                books.check(dict.fromkeys(scopes, fitting))
            held = amount if wanted is None else books.step(scopes, amount, wanted)
            deadline = books.now + self.lease
            reservation = Reservation(self._session.number(), place, tuple(scopes), held, deadline)
            books.hold(reservation, known={})
            return reservation

        return self._session.run(work)

    def grow(
        self, reservation: Reservation, amount: Amount, *, wanted: Amount | None = None
    ) -> None:
        def work(books: SQLiteBooks) -> tuple[Amount, float]:
            known = books.holds_of(reservation.number)
            held = amount
            if wanted is not None:
                old = reservation.held if known else NOTHING
                held = old + books.step(reservation.scopes, amount - old, wanted - old)
            deadline = books.now + self.lease
            books.hold(replace(reservation, held=held, deadline=deadline), known=known)
            return held, deadline

        reservation.held, reservation.deadline = self._session.run(work)

    def park(self, reservation: Reservation, lease: float) -> None:
        def work(books: SQLiteBooks) -> float:
            books.park(reservation.number, books.now + lease)
            return books.now + lease

        reservation.deadline = self._session.run(work)
        reservation.portable = True

    def adopt(self, number: int, place: str, scopes: Sequence[str], amount: Amount) -> Reservation:
        def work(books: SQLiteBooks) -> Reservation:
            known = books.holds_of(number)
            deadline = books.now + self.lease
            reservation = Reservation(number, place, tuple(scopes), amount, deadline)
            books.hold(reservation, known=known)
            return reservation

        return self._session.run(work)

    # -- changes of the place

    def changing(self, place: str, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._session.locks.changing(place, names)

    def intend(
        self,
        place: str,
        effects: Sequence[Effect],
        reservation: Reservation | None = None,
        *,
        atomic: bool = True,
    ) -> Change:
        holds = _holds_of(effects, atomic=atomic)

        def work(books: SQLiteBooks) -> Change:
            for effect in effects:
                for number in books.open_changes(place, effect.name):
                    books.end(number, effect.before)
            numbers = [self._session.number() for _ in effects]
            known: Mapping[str, Amount] = {}
            if reservation is not None:
                numbers[0] = reservation.number
                known = books.holds_of(reservation.number)
            deadline = books.now + self.lease
            change = Change(place, tuple(numbers), tuple(effects), holds)
            books.hold_change(change, deadline, known=known, atomic=atomic)
            return change

        return self._session.run(work)

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
        self._session.post(lambda books: books.end_change(change, found), linger=linger)

    def free(self, place: str, name: str, generation: int) -> None:
        def work(books: SQLiteBooks) -> None:
            after = books.effect_of(generation, place, name)
            if after is not None:
                books.end(generation, after)

        self._session.post(work)

    def release(self, held: Reservation | Change | int) -> None:
        numbers: tuple[int, ...]
        if isinstance(held, Change):
            numbers = held.numbers
        else:
            numbers = (held if isinstance(held, int) else held.number,)

        def work(books: SQLiteBooks) -> None:
            for number in numbers:
                books.end(number)

        self._session.post(work)

    def amend(self, place: str, name: str, scopes: Sequence[str], amount: Amount) -> None:
        self._session.post(lambda books: books.use(place, name, scopes, amount))

    # -- after a crash

    def recover(self, place: str, lookup: Lookup) -> Report:
        def orphans(books: SQLiteBooks) -> tuple[int, list[tuple[int, str]]]:
            books.reclaim()
            return books.released, books.orphans(place)

        report = Report(place)
        report.released, open_changes = self._session.run(orphans)
        for number, name in open_changes:
            with self._session.locks.trying(place, name) as free:
                if not free:
                    continue  # somebody is changing the name, and settles this on the way
                repair = self._session.run(
                    partial(SQLiteBooks.end, number=number, found=lookup(name))
                )
            if repair is not None:
                report.repairs.append(repair)
        return report

    def needs_reconcile(self, place: str) -> bool:
        return self._session.run(lambda books: books.is_stale(place))

    def reconcile(
        self, place: str, listing: Listing, belongs: Belongs, *, only_if_needed: bool = False
    ) -> Report:
        locks = self._session.locks
        with locks.counting(place):
            report = Report(place)
            if only_if_needed and not self.needs_reconcile(place):
                return report
            try:
                self._session.run(lambda books: books.begin_count(place))
                folder: str | None = ""
                while folder is not None:
                    with locks.listing(place, folder):
                        folder = self._count(place, folder, listing, belongs, report)
            except BaseException:
                self._session.post(lambda books: books.give_count_up(place))
                raise
            return report

    def _count(
        self, place: str, folder: str, listing: Listing, belongs: Belongs, report: Report
    ) -> str | None:
        """Count one folder and return the next, None after the last."""
        open_changes = self._session.run(lambda books: books.open_in_folder(place, folder))
        subfolders: list[str] = []
        found: dict[str, Amount] = {}
        left: dict[str, Amount] = {}
        try:
            for entry in listing(folder):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.directory:
                    subfolders.append(name)
                    continue
                amount = Amount(entry.size, 1)
                scopes = belongs(name)
                for scope in scopes:
                    found[scope] = found.get(scope, NOTHING) + amount
                if scopes:
                    report.counted += amount
                if name in open_changes:
                    left[name] = amount
        except ObjectNotFound:
            logger.debug("%s went away before it was counted", folder)

        def work(books: SQLiteBooks) -> str | None:
            for name, number in open_changes.items():
                books.end(number, left.get(name, NOTHING))
            books.count_folder(place, folder, subfolders, found)
            following = books.next_folder(place)
            if following is None:
                report.corrections = books.end_count(place)
            return following

        following = self._session.run(work)
        report.folders += 1
        return following

    def forget(self, place: str) -> None:
        self._session.run(lambda books: books.forget(place))


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
