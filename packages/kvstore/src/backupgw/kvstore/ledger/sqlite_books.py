"""The books of one SQLite transaction: what the steps of a ledger read and change."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from .accounts import Account, Books
from .records import NOTHING, Amount, Change, Correction, Limit, Repair, Reservation

DEAD = 0
"""The session of intents whose process has died."""

_ROWS = 8
"""Rows written by one statement; few, so that the statements stay in SQLite's cache."""

_READ_ACCOUNTS = (
    "SELECT scope, hard_bytes, hard_objects, soft_bytes, soft_objects,"
    " used_bytes, used_objects, reserved_bytes, reserved_objects, raised FROM scopes"
)
_WRITE_ACCOUNTS = (
    "INSERT INTO scopes VALUES {} ON CONFLICT DO UPDATE SET"
    " hard_bytes=excluded.hard_bytes, hard_objects=excluded.hard_objects,"
    " soft_bytes=excluded.soft_bytes, soft_objects=excluded.soft_objects,"
    " used_bytes=excluded.used_bytes, used_objects=excluded.used_objects,"
    " reserved_bytes=excluded.reserved_bytes, reserved_objects=excluded.reserved_objects,"
    " raised=excluded.raised"
)
_ADD_TO_TALLIES = (
    "INSERT INTO tallies VALUES {} ON CONFLICT DO UPDATE SET"
    " bytes=bytes+excluded.bytes, objects=objects+excluded.objects,"
    " counted_bytes=counted_bytes+excluded.counted_bytes,"
    " counted_objects=counted_objects+excluded.counted_objects"
)
_END = (
    "DELETE FROM held WHERE number = ? RETURNING number, place, holds, name, scopes, siblings,"
    " before_bytes, before_objects, after_bytes, after_objects"
)


_NO_EFFECT = (None,) * 7


class SQLiteBooks(Books):
    """The state behind one write transaction.

    Args:
        db: with the transaction begun.
        session: this process's.
        now: seconds since the epoch.
        is_dead: whether another session's process has ended.
        boot: what tells this start of the machine from others, "" where nothing does.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        session: int,
        now: float,
        is_dead: Callable[[int], bool],
        boot: str,
    ) -> None:
        super().__init__()
        self.db = db
        self.now = now
        self.session = session
        self.released = 0
        self._is_dead = is_dead
        self._boot = boot
        self._tallies: dict[tuple[str, str], tuple[Amount, Amount]] = {}
        self._counting: bool | None = None

    # -- accounts

    def load(self, scopes: Sequence[str]) -> Iterator[Account]:
        marks = ",".join("?" * len(scopes))
        rows = self.db.execute(f"{_READ_ACCOUNTS} WHERE scope IN ({marks})", scopes).fetchall()
        return map(_account, rows)

    def all_accounts(self, after: str, most: int) -> list[Account]:
        """Return the next accounts in the order of their scopes."""
        self.write_back()
        rows = self.db.execute(
            f"{_READ_ACCOUNTS} WHERE scope > ? ORDER BY scope LIMIT ?", (after, most)
        ).fetchall()
        return list(map(_account, rows))

    def write_back(self) -> None:
        """Put down what the steps changed."""
        self._upsert(_WRITE_ACCOUNTS, [_account_row(account) for account in self.touched()])
        tallies, self._tallies = self._tallies, {}
        self._upsert(
            _ADD_TO_TALLIES,
            [(*key, *more, *counted) for key, (more, counted) in tallies.items()],
        )

    def _upsert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        # A few rows in one statement: each statement hands the interpreter's lock around.
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            marks = f"({','.join('?' * len(part[0]))})"
            self.db.execute(
                statement.format(",".join([marks] * len(part))),
                [value for row in part for value in row],
            )

    def use(self, place: str, name: str, scopes: Sequence[str], more: Amount) -> None:
        """Add to what the scopes use; `name` is where in the place."""
        if not more:
            return
        counted = more if self._is_counted(place, name) else NOTHING
        for account in self.accounts(scopes):
            account.use(more)
            self._add_to_tally(place, account.scope, more, counted)

    def _add_to_tally(self, place: str, scope: str, more: Amount, counted: Amount) -> None:
        old_more, old_counted = self._tallies.get((place, scope), (NOTHING, NOTHING))
        self._tallies[place, scope] = (old_more + more, old_counted + counted)

    # -- reservations and intents

    def holds_of(self, number: int) -> dict[str, Amount]:
        """Return what is held under a number; nothing where it has ended."""
        row = self.db.execute("SELECT holds FROM held WHERE number = ?", (number,)).fetchone()
        return {} if row is None else _holds(row[0])

    def hold(
        self,
        reservation: Reservation,
        *,
        known: Mapping[str, Amount],
    ) -> None:
        """Hold what a reservation says, where `known` is held under its number already.

        Raises:
            LimitExceeded: nothing was changed.
        """
        holds = dict.fromkeys(reservation.scopes, reservation.held)
        number, deadline = reservation.number, reservation.deadline
        self._make_room(number, holds, known, deadline)
        self._put(number, reservation.place, holds, deadline)

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
            self._put(
                number,
                change.place,
                holds,
                deadline,
                effect.name,
                _dump(effect.scopes),
                json.dumps(siblings) if siblings else None,
                *effect.before,
                *effect.after,
            )

    def _make_room(
        self, number: int, holds: Mapping[str, Amount], known: Mapping[str, Amount], deadline: float
    ) -> None:
        if known:
            # Or making room could give this very reservation back.
            self.db.execute("UPDATE held SET deadline = ? WHERE number = ?", (deadline, number))
            scopes = holds.keys() | known.keys()
            holds = {
                scope: holds.get(scope, NOTHING) - known.get(scope, NOTHING) for scope in scopes
            }
        self.reserve(holds)

    def _put(
        self,
        number: int,
        place: str,
        holds: Mapping[str, Amount],
        deadline: float,
        *effect: object,
    ) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (number, self.session, deadline, place, _dump_holds(holds), *(effect or _NO_EFFECT)),
        )

    def park(self, number: int, deadline: float) -> None:
        """Make a reservation nobody's."""
        self.db.execute(
            "UPDATE held SET session = NULL, deadline = ? WHERE number = ?", (deadline, number)
        )

    def end(self, number: int, found: Amount | None = None) -> Repair | None:
        """Let an intent or a reservation end as if it had not happened, or with what was `found`
        at its name. One that has ended already is fine."""
        row = self.db.execute(_END, (number,)).fetchall()
        return self._ended(row[0], found) if row else None

    def end_change(self, change: Change, found: Sequence[Amount]) -> None:
        """Like `end` for all of a change, from memory: nobody alters an intent."""
        for number, effect, held, amount in zip(
            change.numbers, change.effects, change.held, found, strict=True
        ):
            if self.db.execute("DELETE FROM held WHERE number = ?", (number,)).rowcount:
                self.give_back(held)
                self.use(change.place, effect.name, effect.scopes, amount - effect.before)

    def _ended(self, row: tuple[Any, ...], found: Amount | None) -> Repair | None:
        number, place, holds, name, scopes, siblings, *numbers = row
        self.give_back(_holds(holds))
        if name is None:
            return None
        before, after = Amount(*numbers[:2]), Amount(*numbers[2:])
        if found is None:
            found = before
        self.use(place, name, json.loads(scopes), found - before)
        if siblings is not None and before != after:
            # What happened to this name happened to the others. They end in the same transaction:
            # between the two halves of a move, somebody could take the room that it needs.
            for sibling in json.loads(siblings):
                self._end_sibling(sibling, happened=found != before)
        return Repair(name, number, before, after, found)

    def _end_sibling(self, number: int, *, happened: bool) -> None:
        for row in self.db.execute(_END, (number,)).fetchall():
            _, place, holds, name, scopes, _, *numbers = row
            self.give_back(_holds(holds))
            if happened:
                more = Amount(*numbers[2:]) - Amount(*numbers[:2])
                self.use(place, name, json.loads(scopes), more)

    def open_changes(self, place: str, name: str) -> list[int]:
        """Return the numbers of intents for a name that nobody ended."""
        return [
            number
            for (number,) in self.db.execute(
                "SELECT number FROM held WHERE place = ? AND name = ?", (place, name)
            ).fetchall()
        ]

    def effect_of(self, number: int, place: str, name: str) -> Amount | None:
        """Return what an open intent wants the name to hold."""
        row = self.db.execute(
            "SELECT after_bytes, after_objects FROM held WHERE number=? AND place=? AND name=?",
            (number, place, name),
        ).fetchone()
        return None if row is None else Amount(*row)

    # -- after a crash

    def reclaim(self) -> None:
        """Give back reservations that expired or whose process died; mark the dead's intents."""
        expired = self.db.execute(
            "SELECT number FROM held WHERE deadline < ? AND name IS NULL", (self.now,)
        ).fetchall()
        self._release(expired)
        for session, boot in self.db.execute("SELECT id, boot FROM sessions").fetchall():
            if session != self.session and self._is_dead(session):
                self.bury(session)
                if boot != self._boot or not boot:
                    self.db.execute("UPDATE places SET stale = 1")

    def bury(self, session: int) -> None:
        """End a session: nothing of it stays but its open intents."""
        self._release(
            self.db.execute(
                "SELECT number FROM held WHERE session = ? AND name IS NULL", (session,)
            ).fetchall()
        )
        self.db.execute("UPDATE held SET session = ? WHERE session = ?", (DEAD, session))
        self.db.execute("DELETE FROM sessions WHERE id = ?", (session,))

    def _release(self, rows: Iterable[tuple[int]]) -> None:
        for (number,) in rows:
            self.end(number)
            self.released += 1

    def orphans(self, place: str) -> list[tuple[int, str]]:
        """Return (number, name) of the intents that nobody is going to end."""
        return self.db.execute(
            "SELECT number, name FROM held WHERE place = ? AND name IS NOT NULL"
            " AND (session = ? OR deadline < ?)",
            (place, DEAD, self.now),
        ).fetchall()

    # -- counting a place anew

    def is_stale(self, place: str) -> bool:
        row = self.db.execute("SELECT stale FROM places WHERE place = ?", (place,)).fetchone()
        return row is None or bool(row[0])

    def begin_count(self, place: str) -> None:
        """Begin at the root; what another count left unfinished is void."""
        self.give_count_up(place)
        self._counting = None
        self.db.execute("INSERT INTO uncounted VALUES (?, '')", (place,))

    def give_count_up(self, place: str) -> None:
        self.write_back()
        self.db.execute("DELETE FROM uncounted WHERE place = ?", (place,))
        self.db.execute(
            "UPDATE tallies SET counted_bytes = 0, counted_objects = 0 WHERE place = ?", (place,)
        )

    def next_folder(self, place: str) -> str | None:
        """Return a folder that the count has still to list, None when it is complete."""
        row = self.db.execute(
            "SELECT folder FROM uncounted WHERE place = ? LIMIT 1", (place,)
        ).fetchone()
        return None if row is None else str(row[0])

    def open_in_folder(self, place: str, folder: str) -> dict[str, int]:
        """Return the open intents for names directly in a folder."""
        prefix = f"{folder}/" if folder else ""
        rows = self.db.execute(
            "SELECT name, number FROM held WHERE place = ? AND name >= ?"
            " AND (? = '' OR name < ?)",  # "0" comes right after "/"
            (place, prefix, folder, f"{folder}0"),
        ).fetchall()
        return {name: number for name, number in rows if "/" not in name[len(prefix) :]}

    def count_folder(
        self, place: str, folder: str, subfolders: Iterable[str], found: Mapping[str, Amount]
    ) -> None:
        """Note what a folder holds directly, within the lock that keeps its changes waiting."""
        self.db.execute("DELETE FROM uncounted WHERE place = ? AND folder = ?", (place, folder))
        self.db.executemany(
            "INSERT INTO uncounted VALUES (?, ?)", ((place, each) for each in subfolders)
        )
        for scope, amount in found.items():
            self._add_to_tally(place, scope, NOTHING, amount)

    def end_count(self, place: str) -> list[Correction]:
        """Make what was counted what is used, and return what differed."""
        self.write_back()
        corrections = []
        for scope, *numbers in self.db.execute(
            "SELECT scope, bytes, objects, counted_bytes, counted_objects FROM tallies"
            " WHERE place = ? ORDER BY scope",
            (place,),
        ).fetchall():
            recorded, found = Amount(*numbers[:2]), Amount(*numbers[2:])
            if recorded != found:
                corrections.append(Correction(scope, recorded, found))
                self.account(scope).use(found - recorded)
        self.db.execute(
            "UPDATE tallies SET bytes = counted_bytes, objects = counted_objects,"
            " counted_bytes = 0, counted_objects = 0 WHERE place = ?",
            (place,),
        )
        self.db.execute("INSERT OR REPLACE INTO places VALUES (?, 0)", (place,))
        return corrections

    def forget(self, place: str) -> None:
        """Empty the accounts of a place."""
        self.write_back()
        numbers = self.db.execute("SELECT number FROM held WHERE place = ?", (place,)).fetchall()
        self._release(numbers)
        self.give_count_up(place)
        self.end_count(place)
        self.db.execute("DELETE FROM tallies WHERE place = ?", (place,))
        self.db.execute("DELETE FROM places WHERE place = ?", (place,))

    def _is_counted(self, place: str, name: str) -> bool:
        """Whether a count is in progress that has been where `name` is."""
        if self._counting is None:
            row = self.db.execute("SELECT EXISTS (SELECT 1 FROM uncounted)").fetchone()
            self._counting = bool(row[0])
        if not self._counting or self.next_folder(place) is None:
            return False
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            if self.db.execute(
                "SELECT 1 FROM uncounted WHERE place = ? AND folder = ?", (place, folder)
            ).fetchone():
                return False
        return True


def _account(row: tuple[Any, ...]) -> Account:
    scope, *limits, used_bytes, used_objects, reserved_bytes, reserved_objects, raised = row
    return Account(
        scope,
        _limit(*limits),
        used_bytes,
        used_objects,
        reserved_bytes,
        reserved_objects,
        frozenset(raised.split(",")) if raised else frozenset(),
    )


def _account_row(account: Account) -> tuple[object, ...]:
    limit = account.limit
    return (
        account.scope,
        limit.hard_bytes,
        limit.hard_objects,
        limit.soft_bytes,
        limit.soft_objects,
        account.used_bytes,
        account.used_objects,
        account.reserved_bytes,
        account.reserved_objects,
        ",".join(sorted(account.raised)) if account.raised else "",
    )


def _sum(holds: Sequence[Mapping[str, Amount]]) -> Mapping[str, Amount]:
    if len(holds) == 1:
        return holds[0]
    total: dict[str, Amount] = {}
    for each in holds:
        for scope, amount in each.items():
            total[scope] = total.get(scope, NOTHING) + amount
    return total


_limit = lru_cache(maxsize=1024)(Limit)
_dump = lru_cache(maxsize=1024)(json.dumps)


def _holds(text: str) -> dict[str, Amount]:
    return {scope: Amount(size, objects) for scope, size, objects in json.loads(text)}


def _dump_holds(holds: Mapping[str, Amount]) -> str:
    parts = [f"[{_dump(scope)},{size},{objects}]" for scope, (size, objects) in holds.items()]
    return f"[{','.join(parts)}]"
