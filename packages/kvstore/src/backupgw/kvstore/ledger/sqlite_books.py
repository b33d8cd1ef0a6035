"""The books of one SQLite transaction: what the steps of a ledger read and change."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .accounts import Account, Books
from .records import NOTHING, Amount, Correction, Effect, Limit, Repair

DEAD = 0
"""The session of intents whose process has died."""

_READ_ACCOUNTS = (
    "SELECT scope, hard_bytes, hard_objects, soft_bytes, soft_objects,"
    " used_bytes, used_objects, reserved_bytes, reserved_objects, raised FROM scopes"
)
_WRITE_ACCOUNT = (
    "INSERT INTO scopes VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
    " hard_bytes=excluded.hard_bytes, hard_objects=excluded.hard_objects,"
    " soft_bytes=excluded.soft_bytes, soft_objects=excluded.soft_objects,"
    " used_bytes=excluded.used_bytes, used_objects=excluded.used_objects,"
    " reserved_bytes=excluded.reserved_bytes, reserved_objects=excluded.reserved_objects,"
    " raised=excluded.raised"
)
_ADD_TO_TALLY = (
    "INSERT INTO tallies VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
    " bytes=bytes+excluded.bytes, objects=objects+excluded.objects,"
    " counted_bytes=counted_bytes+excluded.counted_bytes,"
    " counted_objects=counted_objects+excluded.counted_objects"
)
_END = (
    "DELETE FROM held WHERE number = ? RETURNING number, place, holds, name, scopes,"
    " before_bytes, before_objects, after_bytes, after_objects"
)


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
        if touched := self.touched():
            self.db.executemany(_WRITE_ACCOUNT, map(_account_row, touched))
        if self._tallies:
            self.db.executemany(
                _ADD_TO_TALLY,
                (
                    (place, scope, more.bytes, more.objects, counted.bytes, counted.objects)
                    for (place, scope), (more, counted) in self._tallies.items()
                ),
            )
            self._tallies.clear()

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
        number: int,
        place: str,
        holds: Mapping[str, Amount],
        deadline: float,
        *,
        known: Mapping[str, Amount],
        effect: Effect | None = None,
    ) -> None:
        """Hold so much under a number, where `known` is held already.

        Raises:
            LimitExceeded: nothing was changed.
        """
        if known:  # or making room could give this very reservation back
            self.db.execute("UPDATE held SET deadline = ? WHERE number = ?", (deadline, number))
        scopes = holds.keys() | known.keys()
        self.reserve(
            {scope: holds.get(scope, NOTHING) - known.get(scope, NOTHING) for scope in scopes}
        )
        values: tuple[object, ...] = (None,) * 6
        if effect is not None:
            before, after = effect.before, effect.after
            values = (
                effect.name,
                json.dumps(effect.scopes),
                before.bytes,
                before.objects,
                after.bytes,
                after.objects,
            )
        self.db.execute(
            "INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (number, self.session, deadline, place, _dump_holds(holds), *values),
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

    def _ended(self, row: tuple[Any, ...], found: Amount | None) -> Repair | None:
        number, place, holds, name, scopes, *numbers = row
        self.reserve({scope: NOTHING - held for scope, held in _holds(holds).items()})
        if name is None:
            return None
        before, after = Amount(*numbers[:2]), Amount(*numbers[2:])
        if found is None:
            found = before
        self.use(place, name, json.loads(scopes), found - before)
        return Repair(name, number, before, after, found)

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

    def count_folder(
        self, place: str, folder: str, subfolders: Iterable[str], found: Mapping[str, Amount]
    ) -> None:
        """Note what a folder holds directly, within the lock that keeps its changes waiting.

        Intents for names in it that are still open need no other end: what they did, or did not,
        has been counted.
        """
        prefix = f"{folder}/" if folder else ""
        names = self.db.execute(
            "SELECT number, name FROM held WHERE place = ? AND name >= ?"
            " AND (? = '' OR name < ?)",  # "0" comes right after "/"
            (place, prefix, folder, f"{folder}0"),
        ).fetchall()
        for number, name in names:
            if "/" not in name[len(prefix) :]:
                self.end(number)
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
    scope, hb, ho, sb, so, used_bytes, used_objects, reserved_bytes, reserved_objects, raised = row
    return Account(
        scope,
        Limit(hb, ho, sb, so),
        Amount(used_bytes, used_objects),
        Amount(reserved_bytes, reserved_objects),
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
        account.used.bytes,
        account.used.objects,
        account.reserved.bytes,
        account.reserved.objects,
        ",".join(sorted(account.raised)),
    )


def _holds(text: str) -> dict[str, Amount]:
    return {scope: Amount(size, objects) for scope, size, objects in json.loads(text)}


def _dump_holds(holds: Mapping[str, Amount]) -> str:
    return json.dumps([(scope, held.bytes, held.objects) for scope, held in holds.items()])
