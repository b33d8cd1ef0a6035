"""The books of one transaction over rows of what is held: reservations and intents.

What follows from the rows is decided here, once for every ledger; a subclass reads and writes them
where its state lies.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from .accounts import Account, Books
from .noted import Noted
from .records import (
    NOTHING,
    Amount,
    Change,
    Correction,
    Effect,
    Item,
    Limit,
    Repair,
    Reservation,
)


class HeldRow(NamedTuple):
    """A reservation, or an intent for one name.

    Attributes:
        holds: what is held in which scopes, as `dump_holds` writes it.
        name: None for a reservation, and so is all that follows.
        scopes: the name's, as a JSON list.
        siblings: the numbers of the other effects of a change that happens as one or not at all,
            as a JSON list; None where there are none.
        before, after: what the name held, and what it is to hold.
        file: number of the file that is to have the name, 0 where nobody said. With it, nobody has
            looked whether another one has it: `before` is what the name counts with by this intent.
    """

    number: int
    place: str
    holds: str
    name: str | None = None
    scopes: str | None = None
    siblings: str | None = None
    before: Amount = NOTHING
    after: Amount = NOTHING
    file: int = 0


@dataclass(slots=True)
class Needs:
    """What a step is going to read, for a ledger that fetches it beforehand.

    Attributes:
        claimed: the step relies on the names, or on the folder, being held: on `changing`,
            `trying` or `listing` around it.
        durable: what the step writes has to outlast a power loss as soon as it is done; without,
            it is enough that it comes before all that follows.
        folder: the folder of the place that the step counts.
    """

    scopes: Sequence[str] = ()
    numbers: Sequence[int] = ()
    place: str = ""
    effects: Sequence[Effect] = ()
    names: Sequence[str] = ()
    folder: str | None = None
    claimed: bool = False
    durable: bool = False


NO_NEEDS = Needs()


class HeldBooks(Books):
    """The state behind one write transaction.

    Attributes:
        now: seconds since the epoch.
        session: this process's.
        released: reservations of dead writers that were given back.
    """

    def __init__(self, *, session: int, now: float) -> None:
        super().__init__()
        self.now = now
        self.session = session
        self.released = 0
        self._tallies: dict[tuple[str, str], tuple[Amount, Amount]] = {}

    # -- accounts

    @abstractmethod
    def all_accounts(self, after: str, most: int) -> list[Account]:
        """Return the next accounts in the order of their scopes."""

    @abstractmethod
    def write_back(self) -> None:
        """Put down what the steps changed."""

    def set_limit(self, scope: str, limit: Limit) -> None:
        """Give an account another limit."""
        account = self.account(scope)
        account.limit, account.dirty = limit, True

    def use(self, place: str, name: str, scopes: Sequence[str], more: Amount) -> None:
        """Add to what the scopes use; `name` is where in the place."""
        if not more:
            return
        counted = more if self.is_counted(place, name) else NOTHING
        self.use_counted(place, scopes, more, counted)

    def use_counted(self, place: str, scopes: Sequence[str], more: Amount, counted: Amount) -> None:
        """Add to what the scopes use, and `counted` to what a count in progress has found."""
        for account in self.accounts(scopes):
            account.use(more)
            self.add_to_tally(place, account.scope, more, counted)

    def add_to_tally(self, place: str, scope: str, more: Amount, counted: Amount) -> None:
        old = self._tallies.get((place, scope))
        if old is not None:
            more, counted = old[0] + more, old[1] + counted
        self._tallies[place, scope] = (more, counted)

    # -- rows

    @abstractmethod
    def holds_of(self, number: int) -> dict[str, Amount]:
        """Return what is held under a number; nothing where it has ended."""

    @abstractmethod
    def put(self, row: HeldRow, deadline: float) -> None:
        """Write a row of this session's, instead of one that has the number."""

    @abstractmethod
    def take(self, number: int) -> HeldRow | None:
        """Remove a row and return it; None where it has ended."""

    @abstractmethod
    def drop(self, number: int) -> bool:
        """Remove a row; returns whether it was there."""

    @abstractmethod
    def renew(self, number: int, deadline: float) -> None:
        """Give a row another deadline."""

    @abstractmethod
    def park(self, number: int, deadline: float) -> None:
        """Make a reservation nobody's."""

    @abstractmethod
    def open_changes(self, place: str, name: str) -> list[int]:
        """Return the numbers of intents for a name that nobody ended."""

    @abstractmethod
    def effect_of(self, number: int, place: str, name: str) -> Amount | None:
        """Return what an open intent wants the name to hold."""

    # -- reservations and intents

    def hold(self, reservation: Reservation, *, known: Mapping[str, Amount]) -> None:
        """Hold what a reservation says, where `known` is held under its number already.

        Raises:
            LimitExceeded: nothing was changed.
        """
        holds = dict.fromkeys(reservation.scopes, reservation.held)
        number, deadline = reservation.number, reservation.deadline
        self._make_room(number, holds, known, deadline)
        self.put(HeldRow(number, reservation.place, dump_holds(holds)), deadline)

    def hold_change(
        self, change: Change, deadline: float, *, known: Mapping[str, Amount], atomic: bool
    ) -> None:
        """Record an intent, where `known` is held under its generation already.

        Raises:
            LimitExceeded: nothing was changed.
        """
        self._make_room(change.generation, _sum(change.held), known, deadline)
        for number, effect, holds in zip(change.numbers, change.effects, change.held, strict=True):
            siblings = [other for other in change.numbers if other != number] if atomic else []
            row = HeldRow(
                number,
                change.place,
                dump_holds(holds),
                effect.name,
                _dump(effect.scopes),
                json.dumps(siblings) if siblings else None,
                effect.before,
                effect.after,
            )
            self.put(row, deadline)

    def _make_room(
        self, number: int, holds: Mapping[str, Amount], known: Mapping[str, Amount], deadline: float
    ) -> None:
        if known:
            # Or making room could give this very reservation back.
            self.renew(number, deadline)
            scopes = holds.keys() | known.keys()
            holds = {
                scope: holds.get(scope, NOTHING) - known.get(scope, NOTHING) for scope in scopes
            }
        self.reserve(holds)

    def end(self, number: int, found: Amount | None = None) -> Repair | None:
        """Let an intent or a reservation end as if it had not happened, or with what was `found`
        at its name. One that has ended already is fine."""
        row = self.take(number)
        if row is None:
            return None
        if row.file and isinstance(found, Item) and found.file != row.file:
            if found.file:
                found = None  # another item, which was there before
            else:
                self.mark_stale(row.place)
        return self._ended(row, found)

    @abstractmethod
    def mark_stale(self, place: str) -> None:
        """Have a place counted when it is next opened: nobody can tell how an intent ended."""

    @abstractmethod
    def mark_all_stale(self) -> None:
        """Have every place counted when it is next opened."""

    def end_as_intended(self, number: int) -> None:
        """Let an intent end with what was intended. One that has ended already is fine."""
        row = self.take(number)
        if row is not None:
            self._ended(row, row.after)

    def end_change(self, change: Change, found: Sequence[Amount]) -> None:
        """Like `end` for all of a change, from memory: nobody alters an intent."""
        for number, effect, held, amount in zip(
            change.numbers, change.effects, change.held, found, strict=True
        ):
            if self.drop(number):
                self.give_back(held)
                self.use(change.place, effect.name, effect.scopes, amount - effect.before)
                self.known(change.place, effect.name, amount)
            else:
                self.was_ended(change.place, number)

    def _ended(self, row: HeldRow, found: Amount | None) -> Repair | None:
        self.give_back(load_holds(row.holds))
        if row.name is None or row.scopes is None:
            return None
        before, after = row.before, row.after
        if found is None:
            found = before
        self.use(row.place, row.name, json.loads(row.scopes), found - before)
        self.known(row.place, row.name, found)
        if row.siblings is not None and before != after:
            # What happened to this name happened to the others. They end in the same transaction:
            # between the two halves of a move, somebody could take the room that it needs.
            for sibling in json.loads(row.siblings):
                self._end_sibling(sibling, happened=found != before)
        return Repair(row.name, row.number, before, after, found)

    def _end_sibling(self, number: int, *, happened: bool) -> None:
        row = self.take(number)
        if row is None:
            return
        self.give_back(load_holds(row.holds))
        if row.name is not None and row.scopes is not None:
            found = row.after if happened else row.before
            self.use(row.place, row.name, json.loads(row.scopes), found - row.before)
            self.known(row.place, row.name, found)

    def known(self, place: str, name: str, found: Amount) -> None:
        """Told at the end of each intent what its name counts with from now on."""

    def end_orphan(self, number: int, found: Amount, listed: float) -> Repair | None:  # noqa: ARG002
        """Like `end` for what `orphans` returned, with what was found at its name since.

        Args:
            listed: `now` of the books that `orphans` was asked of.
        """
        return self.end(number, found)

    def was_ended(self, place: str, number: int) -> None:
        """Told when a change is settled whose intent somebody else has ended already."""

    def release_all(self, numbers: Iterable[int]) -> None:
        """Give back reservations of dead writers."""
        for number in numbers:
            self.end(number)
            self.released += 1

    @abstractmethod
    def bury(self, session: int) -> None:
        """End a session: nothing of it stays but its open intents."""

    @abstractmethod
    def orphans(self, place: str) -> list[tuple[int, str]]:
        """Return (number, name) of the intents that nobody is going to end."""

    # -- counting a place anew

    @abstractmethod
    def is_stale(self, place: str) -> bool:
        """Whether the place has to be counted."""

    @abstractmethod
    def is_counted(self, place: str, name: str) -> bool:
        """Whether a count is in progress that has been where `name` is."""

    @abstractmethod
    def begin_count(self, place: str) -> None:
        """Begin with the root; what another count left unfinished is void."""

    @abstractmethod
    def give_count_up(self, place: str) -> None:
        """Forget what a count of this session's that is in progress has found."""

    @abstractmethod
    def next_folder(self, place: str) -> str | None:
        """Return a folder that the count has still to list, None when it is complete."""

    @abstractmethod
    def begin_folder(self, place: str, folder: str) -> None:
        """This session lists a folder from now on: note what is under way beneath it, and what
        will be."""

    @abstractmethod
    def note(self, place: str, name: str) -> None:
        """Note that a name is about to change or has changed, if a folder above it is listed just
        now. Told with each intent, by `put`, and else where there is none."""

    @abstractmethod
    def noted(self, place: str, folder: str) -> Noted:
        """Return what was noted beneath the folder that is listed just now.

        Raises:
            LedgerError: this session does not list it.
        """

    @abstractmethod
    def take_noted(self, place: str, folder: str, most: int) -> Noted:
        """Return some of what was noted so far, and let go of it but for what is under way."""

    @abstractmethod
    def open_in_folder(self, place: str, folder: str) -> dict[str, int]:
        """Return the open intents for names directly in a folder."""

    @abstractmethod
    def count_folder(
        self, place: str, folder: str, subfolders: Sequence[str], found: Mapping[str, Amount]
    ) -> None:
        """Note what a folder holds directly, within the lock that keeps its changes waiting.

        Raises:
            LedgerError: this session does not list it.
        """

    @abstractmethod
    def end_count(self, place: str) -> list[Correction]:
        """Make what was counted what is used, and return what differed."""

    @abstractmethod
    def forget(self, place: str) -> None:
        """Empty the accounts of a place."""


def load_holds(text: str) -> dict[str, Amount]:
    """Return what `dump_holds` wrote."""
    return {scope: Amount(size, objects) for scope, size, objects in json.loads(text)}


def dump_holds(holds: Mapping[str, Amount]) -> str:
    """Return what is held in which scopes as text."""
    parts = [f"[{_dump(scope)},{size},{objects}]" for scope, (size, objects) in holds.items()]
    return f"[{','.join(parts)}]"


_dump = lru_cache(maxsize=1024)(json.dumps)


def _sum(holds: Sequence[Mapping[str, Amount]]) -> Mapping[str, Amount]:
    if len(holds) == 1:
        return holds[0]
    total: dict[str, Amount] = {}
    for each in holds:
        for scope, amount in each.items():
            total[scope] = total.get(scope, NOTHING) + amount
    return total
