"""The books of a transaction that goes into the log: all in memory, and no statement of SQLite.

They know accounts and what is held, which is all that an upload or a removal needs. Whatever else a
step asks for, and giving back what the dead hold, raises BeyondLog: the step is done anew, in a
transaction of SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .accounts import Account
from .held import HeldBooks, HeldRow, load_holds
from .records import Amount
from .sqlite_books import DEAD
from .sqlite_memory import Memory
from .sqlite_rows import held_of, row_of


class BeyondLog(Exception):
    """A step needs more than the log has; what the books did before is void."""


def _beyond_log(*_: Any, **__: Any) -> NoReturn:
    raise BeyondLog


class LoggedBooks(HeldBooks):
    """The state behind one record of the log.

    Args:
        memory: changed as the steps go; worthless unless the record gets into the log.
        session, now, is_dead: as `SQLiteBooks` has them.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        session: int,
        now: float,
        is_dead: Callable[[int], bool],
    ) -> None:
        super().__init__(session=session, now=now)
        self.record = b""
        """What goes into the log, after `write_back`; nothing where nothing changed."""
        self._memory = memory
        self._is_dead = is_dead
        self._rows: set[int] = set()

    # -- accounts

    def load(self, scopes: Sequence[str]) -> list[Account]:
        return self._memory.accounts(scopes)

    def write_back(self) -> None:
        accounts = self.touched()
        if accounts or self._rows:
            self.record = self._memory.record(accounts, self._tallies, self._rows)

    # -- reservations and intents

    def holds_of(self, number: int) -> dict[str, Amount]:
        row = self._memory.held.get(number)
        return {} if row is None else load_holds(row[4])

    def put(self, row: HeldRow, deadline: float) -> None:
        self._memory.put(row_of(row, self.session, deadline))
        self._rows.add(row.number)

    def take(self, number: int) -> HeldRow | None:
        row = self._memory.drop(number)
        if row is None:
            return None
        self._rows.add(number)
        return held_of(row)

    def drop(self, number: int) -> bool:
        if self._memory.drop(number) is None:
            return False
        self._rows.add(number)
        return True

    def renew(self, number: int, deadline: float) -> None:
        row = self._memory.held.get(number)
        if row is not None:
            self._memory.put((*row[:2], deadline, *row[3:]))
            self._rows.add(number)

    def park(self, number: int, deadline: float) -> None:
        row = self._memory.held.get(number)
        if row is not None:
            self._memory.put((number, None, deadline, *row[3:]))
            self._rows.add(number)

    def open_changes(self, place: str, name: str) -> list[int]:
        return self._memory.numbers_of(place, name)

    def effect_of(self, number: int, place: str, name: str) -> Amount | None:
        row = self._memory.held.get(number)
        if row is None or row[3] != place or row[5] != name:
            return None
        return Amount(*row[10:12])

    def note(self, place: str, name: str) -> None:  # noqa: ARG002 - whatever the name
        if place in self._memory.listed:
            raise BeyondLog  # a record would say nothing of it

    def is_counted(self, place: str, name: str) -> bool:
        return self._memory.is_counted(place, name)

    # -- after a crash

    def reclaim(self) -> None:
        """Find out whether there is anything to give back."""
        held = self._memory.held.values()
        if any(row[2] < self.now and row[5] is None for row in held):
            raise BeyondLog
        for session, _ in self._memory.sessions:
            if session != self.session and self._is_dead(session):
                raise BeyondLog

    def orphans(self, place: str) -> list[tuple[int, str]]:
        return [
            (row[0], row[5])
            for row in self._memory.held.values()
            if row[3] == place and row[5] is not None and (row[1] == DEAD or row[2] < self.now)
        ]

    # -- what is in the file alone

    mark_stale = _beyond_log
    mark_all_stale = _beyond_log
    set_limit = _beyond_log
    all_accounts = _beyond_log
    bury = _beyond_log
    is_stale = _beyond_log
    begin_count = _beyond_log
    give_count_up = _beyond_log
    next_folder = _beyond_log
    begin_folder = _beyond_log
    noted = _beyond_log
    take_noted = _beyond_log
    open_in_folder = _beyond_log
    count_folder = _beyond_log
    end_count = _beyond_log
    forget = _beyond_log
