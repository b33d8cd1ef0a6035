"""The protocol that every ledger keeps, whatever holds its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ..backends.base import ItemInfo
from .records import Amount, Change, Effect, Limit, NewItem, Report, Reservation, Usage

Lookup = Callable[[str], Amount]
"""Tells what a name holds in the place now; NOTHING where there is no item."""

Listing = Callable[[str], Iterable[ItemInfo]]
"""Lists a folder of the place, as `Backend.list`; a missing folder lists nothing."""

Belongs = Callable[[str], Sequence[str]]
"""The scopes that a name counts towards; none where it is not counted."""


class Ledger(Protocol):
    """Accounts of scopes over one or several places, shared by processes.

    Every method may be called from many threads and processes at once. All of them raise
    LedgerError when the ledger itself fails, LedgerFull when it is for lack of room.

    A place is a string that tells apart the backends whose items one ledger counts.
    """

    lease: float
    """Seconds that a reservation stays without being renewed."""

    def open(self) -> None:
        """Get ready. What processes that died had reserved is given back."""

    def close(self) -> None:
        """Write down what is pending and let go. What this process still holds is given back."""

    # -- limits and accounts

    def set_limit(self, scope: str, limit: Limit) -> None:
        """Set what a scope may hold, for all processes and for good.

        A hard limit below what is used already refuses everything that adds to it.
        """

    def usage(self, scope: str) -> Usage:
        """Return the account of a scope; one that nobody mentioned yet is empty."""

    def usages(self) -> Iterator[Usage]:
        """Yield all accounts, in the order of their scopes."""

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
        """Hold `amount` in all scopes, or in none.

        Args:
            wanted: hold so much instead where that leaves the limits far away.
            fitting: refuse unless so much would have room now; it is not held.
            parked: seconds; as by `park` at once.

        Raises:
            LimitExceeded: which scope refused, and by which limit.
        """

    def grow(
        self, reservation: Reservation, amount: Amount, *, wanted: Amount | None = None
    ) -> None:
        """Hold `amount` altogether from now on, and renew the lease.

        Works as well on a reservation that expired meanwhile: it is made anew.

        Raises:
            LimitExceeded: the reservation is as it was.
        """

    def park(self, reservation: Reservation | int, lease: float) -> None:
        """Make the reservation, or the one of a number, outlive this process, for `lease` seconds.

        A no-op for one that has ended.
        """

    def adopt(
        self,
        number: int,
        place: str,
        scopes: Sequence[str],
        amount: Amount,
        *,
        anew: bool = True,
    ) -> Reservation:
        """Carry a parked reservation on in this process, holding `amount` altogether.

        Args:
            anew: one that ended, whatever by, is made anew.

        Raises:
            LimitExceeded: it expired, and there is no room for it any more.
            ReservationEnded: it did, and is not to be made anew.
        """

    # -- changes of the place

    def changing(self, place: str, names: Iterable[str]) -> AbstractContextManager[None]:
        """Be the only one, of all threads and processes, who changes these names.

        What `Effect.before` says must have been looked up inside, and the change of the place and
        its `settle` happen inside, by the same thread. Changes of other names go on. Not
        reentrant.
        """

    def intend(
        self,
        place: str,
        effects: Sequence[Effect],
        reservation: Reservation | int | None = None,
        *,
        atomic: bool = True,
    ) -> Change:
        """Record what is about to happen, and hold what it adds; only within `changing`.

        Args:
            reservation: becomes part of the change: whatever ends the change ends it too. The
                number of one that was parked will do; where that has ended, what it held is
                reserved like the rest.
            atomic: the place does all of it or nothing, whenever somebody dies. A move that is a
                copy and a removal is not: it needs room for both.

        Raises:
            LimitExceeded: nothing was recorded, and the reservation is as it was.
        """

    def settle(self, change: Change) -> None:
        """The change has happened. A no-op if that is known already.

        Never raises for the ledger's own failure: the intent stays, and the next `recover` or
        change of the name settles it.
        """

    def begin_new(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        *,
        at_once: bool = False,
        file: int = 0,
    ) -> NewItem | None:
        """Do `changing` and `intend` at once for an item of `size` bytes where there is none.

        For what is done all day. None wherever that is not the simple case (the name is held by
        somebody or may hold an item, a limit or a level is near, something has to be waited for):
        nothing was done then, and the long way knows what to do.

        Args:
            missing: tells that nothing has the name for sure; asked while the name is held.
            at_once: `missing` waits for nothing, so others may be kept waiting for its answer.
            file: number of the file that is going to be the item, and nothing else has meanwhile.
                Where it is not 0 there may be another item: then the new one does not get the name,
                and its change is told to `release`. After a crash the file tells (`Item`).
        """

    def end_new(self, item: NewItem, *, settled: bool) -> None:
        """Let go of the name.

        Args:
            settled: the item is there now, as intended. Otherwise its change has been told to
                `release` or `resolve`. Never raises for the ledger's own failure.
        """

    def free(self, place: str, name: str, generation: int) -> None:
        """The removal that was intended as (name, generation) has happened.

        Idempotent by that pair: settles one effect, from any process, without the Change.
        """

    def release(self, held: Reservation | Change | int) -> None:
        """It will not happen, or did not: give back what is held (by its number, if need be).

        A no-op if that is known already. Never raises for the ledger's own failure.
        """

    def resolve(self, change: Change, found: Sequence[Amount]) -> None:
        """Nobody knows whether it happened: settle it by what the names hold now."""

    def amend(self, place: str, effects: Sequence[Effect]) -> None:
        """What was not intended has happened: a removal, with no room for an intent.

        Within `changing` of just these names. Remembered in memory while the ledger cannot be
        written; lost with the process, and then too much counts as used until `reconcile`. Nothing
        is taken off that a count has seen gone; where nobody can tell what it saw, too much counts
        as used and `needs_reconcile` says so.
        """

    # -- after a crash

    def recover(self, place: str, lookup: Lookup) -> Report:
        """Give back what dead writers hold and settle the changes that they left open."""

    def needs_reconcile(self, place: str) -> bool:
        """Whether nobody counted the place yet, or power was lost while the ledger was open."""

    def reconcile(
        self,
        place: str,
        listing: Listing,
        belongs: Belongs,
        *,
        lookup: Lookup | None = None,
        only_if_needed: bool = False,
    ) -> Report:
        """Count the place anew and correct the accounts, while it may be in use.

        Streams: memory grows with the number of scopes in a folder, with that of the folders in it
        and with the names that change meanwhile, not with the items, which take some 100 bytes each
        in a temporary file. A folder's changes go on while it is listed, and wait for a moment
        afterwards. One at a time for a place; a second waits, and with `only_if_needed` does
        nothing after a first that did it.

        Args:
            listing: of a folder; what does not change meanwhile is in it exactly once.
            lookup: asked of names that change while their folder is listed, and may be so with
                their folder locked. Without one their folder is listed again.

        Raises:
            BackendError: the place could not be listed; the accounts are as they were.
        """

    def distrust(self, place: str) -> None:
        """Something may change in the place that is not told: it is counted when it is next
        opened, and until then what is known of it counts."""

    def forget(self, place: str) -> None:
        """The place is gone with all it held: nothing of it counts any more."""
