"""What a process knows of a ledger in SQLite: the file's rows in use, and what its log added.

Every process has its own, and all are the same, since each reads what the others append to the
log. It is thrown away whenever there is doubt; the file and the log have it all.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import sqlite_uploads as uploads
from .accounts import Account
from .noted import in_folder
from .records import Amount
from .sqlite_rows import (
    ROW_LENGTH,
    WRITE_HELD,
    Row,
    add_to_tallies,
    read_accounts,
    write_accounts,
)

_MOST_ACCOUNTS = 10_000
"""Accounts remembered when the log begins anew."""

_text = json.encoder.encode_basestring_ascii


def _row_text(row: Row) -> str:
    number, session, deadline, place, holds, name, scopes, siblings, *amounts, file = row
    start = f"[{number},{_number(session)},{deadline!r},{_text(place)},{_text(holds)}"
    if name is None:
        return start + ",null,null,null,null,null,null,null,0]"
    last = "null" if siblings is None else _text(siblings)
    before_bytes, before_objects, after_bytes, after_objects = amounts
    return (
        f"{start},{_text(name)},{_text(scopes)},{last},"
        f"{before_bytes},{before_objects},{after_bytes},{after_objects},{file}]"
    )


def _number(session: int | None) -> str:
    return "null" if session is None else str(session)


class Memory:
    """The state of a ledger under one tag of its log.

    Attributes:
        tag: of the records that belong to it.
        end: where the last record that it knows ends.
        held: all rows, by their numbers, but for new items' that `spread` has not seen yet.
        sessions: (number, boot) of those on record.
        uncounted: the folders that a count in progress has not been in, for each place that is
            being counted. No other transaction than one of SQLite changes them, so under one tag
            they stay the same.
        listed: the folder of each such place that is listed just now.
        counting: there are too many of them to be known; the rest is empty then, and nothing is
            logged.
    """

    def __init__(
        self,
        tag: bytes,
        end: int,
        connect: Callable[[], sqlite3.Connection],
        *,
        counting: bool,
    ) -> None:
        self._connect = connect
        self.tag = tag
        self.end = end
        self.counting = counting
        self.uncounted: dict[str, set[str]] = {}
        self.listed: dict[str, str] = {}
        self._noted: set[tuple[str, str, int]] = set()
        self.held: dict[int, Row] = {}
        self.sessions: list[tuple[int, str]] = []
        self._accounts: dict[str, Account] = {}
        self.named: dict[tuple[str, str], list[int]] = {}
        # What the file lacks, and the rows that it has.
        self._changed: set[str] = set()
        self._tallies: dict[tuple[str, str], list[int]] = {}
        self._routes: dict[tuple[str, tuple[str, ...], bool], uploads.Route] = {}
        self._tails: dict[bytes, uploads.Route] = {}
        self.new: dict[int, uploads.New] = {}
        # The names of those among them that are not this process's to hold.
        self.others: dict[tuple[str, str], int] = {}
        # What the accounts do not say yet: of the route that is taken just now, of others, and of
        # rows by their numbers.
        self.lane: uploads.Route | None = None
        self._behind: list[uploads.Route] = []
        self._ended: list[int] = []
        self._rows: set[int] = set()
        self._filed: set[int] = set()

    def load(
        self, db: sqlite3.Connection, uncounted: Iterable[tuple[str, str, int | None]] = ()
    ) -> None:
        """Fill it with the file's rows; `uncounted` are places, folders and who lists them."""
        for row in db.execute("SELECT * FROM held").fetchall():
            self.put(row)
        self._filed, self._rows = self._rows, set()
        for place, folder, lister in uncounted:
            self.uncounted.setdefault(place, set()).add(folder)
            if lister is not None:
                self.listed[place] = folder
        self.sessions = db.execute("SELECT id, boot FROM sessions").fetchall()

    # -- accounts

    def accounts(self, scopes: Sequence[str]) -> list[Account]:
        """Return those of the accounts that are on record."""
        known = self._accounts
        unknown = [scope for scope in scopes if scope not in known]
        if unknown:
            for account in read_accounts(self._connect(), unknown):
                known[account.scope] = account
        return [known[scope] for scope in scopes if scope in known]

    # -- rows

    def put(self, row: Row) -> None:
        """Add a row, instead of one that has its number."""
        number, name = row[0], row[5]
        if number in self.held:
            self.drop(number)
        self.held[number] = row
        self._rows.add(number)
        if name is not None:
            self.named.setdefault((row[3], name), []).append(number)
            if self.listed:
                self.note(row[3], name)

    def drop(self, number: int) -> Row | None:
        """Remove a row and return it; None where there is none."""
        row = self.held.pop(number, None)
        if row is None:
            return None
        if number in self._filed:
            self._rows.add(number)
        else:
            self._rows.discard(number)
        if row[5] is not None:
            key = row[3], row[5]
            numbers = self.named[key]
            if len(numbers) == 1:
                del self.named[key]
            else:
                numbers.remove(number)
        return row

    def note(self, place: str, name: str) -> None:
        """Note an intent for a name, if a folder above it is listed just now."""
        folder = self.listed.get(place)
        found = None if folder is None else in_folder(folder, name)
        if found is not None:
            self._noted.add((place, *found))

    def numbers_of(self, place: str, name: str) -> list[int]:
        """Return the numbers of the intents for a name."""
        return list(self.named.get((place, name), ()))

    # -- new items

    def is_open(self, place: str, name: str) -> bool:
        """Whether there is an intent for a name that is not this process's to hold."""
        key = place, name
        return key in self.named or key in self.others

    def is_counted(self, place: str, name: str) -> bool:
        """Whether a count is in progress that has been where `name` is."""
        uncounted = self.uncounted.get(place)
        if uncounted is None:
            return False
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in uncounted:
                return False
        return True

    def change_lane(
        self, place: str, scopes: tuple[str, ...], *, counted: bool
    ) -> uploads.Route | None:
        """Have items of another route come from now on; None where it is not calm or not known."""
        self.settle_up()
        if self.counting:
            return None
        route = self._routes.get((place, scopes, counted)) or self._route(place, scopes, counted)
        if route is None or not route.measure():
            return None
        self.lane = route
        return route

    def end_new(self, number: int, item: uploads.New | None, lane: uploads.Route) -> None:
        """Let an intent end as intended; the accounts are told by `settle_up`.

        Args:
            item: what `new` had for it.
            lane: the route that `settle_up` sees to in any case.
        """
        if item is None:
            self._ended.append(number)
            return
        route, _, name, size, _ = item
        route.ended_bytes += size
        route.ended_objects += 1
        if route is not lane:
            self._behind.append(route)
        key = route.place, name
        if self.others.get(key) == number:
            del self.others[key]

    def settle_up(self) -> None:
        """Bring all sums up to date."""
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.settle_up()
        while self._behind:
            self._behind.pop().settle_up()
        while self._ended:
            self._settle(self._ended.pop())

    def spread(self) -> None:
        """Bring all sums up to date, and give new items rows like all others have."""
        self.settle_up()
        self.others.clear()
        while self.new:
            number, (route, deadline, name, size, file) = self.new.popitem()
            start = number, number >> 32, deadline, route.place, route.holds(size)
            self.put((*start, name, route.scopes_text, None, 0, 0, size, 1, file))

    def _settle(self, number: int) -> None:
        row = self.drop(number)
        if row is not None:
            # A count that has been there since would have ended it.
            counted = self.is_counted(row[3], row[5])
            route = self._surely_route(row[3], tuple(json.loads(row[6])), counted)
            route.ended_bytes += row[10]
            route.ended_objects += row[11]
            route.settle_up()

    def _route(self, place: str, scopes: tuple[str, ...], counted: bool) -> uploads.Route | None:
        """Return what items of these scopes share; None where accounts are not known yet."""
        known = self._accounts
        if not scopes or len(set(scopes)) < len(scopes) or not known.keys() >= set(scopes):
            return None
        self._changed.update(scopes)
        tallies = [self._tallies.setdefault((place, scope), [0, 0, 0, 0]) for scope in scopes]
        accounts = [known[scope] for scope in scopes]
        route = uploads.Route(place, scopes, accounts, tallies, counted=counted)
        self._routes[place, scopes, counted] = route
        return route

    def _surely_route(self, place: str, scopes: tuple[str, ...], counted: bool) -> uploads.Route:
        route = self._routes.get((place, scopes, counted))
        if route is None:
            self.accounts(scopes)
            for scope in scopes:
                self._accounts.setdefault(scope, Account(scope))
            route = self._route(place, scopes, counted)
            assert route is not None
        return route

    def _replay_new(self, record: bytes) -> None:
        # In one frame, since it is a part of each upload where two processes have them.
        settled, number, deadline, name, size, file, tail = uploads.read(record)
        route = self._tails.get(tail)
        if route is None:
            route = self._tails[tail] = self._surely_route(*uploads.route_of(tail))
        if route is not self.lane:
            self.settle_up()  # they may have accounts in common
            self._behind.append(route)
        new, others = self.new, self.others
        for each in settled:
            item = new.pop(each, None)
            if item is None or item[0] is not route:
                self.end_new(each, item, route)
            else:
                route.ended_bytes += item[3]
                route.ended_objects += 1
                key = route.place, item[2]
                if others.get(key) == each:
                    del others[key]
        route.room_bytes -= size
        route.room_objects -= 1
        route.added_bytes += size
        route.added_objects += 1
        new[number] = route, deadline, name, size, file
        others[route.place, name] = number
        if self.listed:
            self.note(route.place, name)

    # -- the log

    def record(
        self,
        accounts: Iterable[Account],
        tallies: dict[tuple[str, str], tuple[Amount, Amount]],
        rows: Iterable[int],
    ) -> bytes:
        """Take over what a transaction changed, whose `rows` were put or dropped here already, and
        return the record of it."""
        # Text by text: a JSON encoder takes twice as long for the whole.
        put, dropped, written, added = [], [], [], []
        for number in rows:
            row = self.held.get(number)
            if row is None:
                dropped.append(str(number))
            else:
                put.append(_row_text(row))
        for account in accounts:
            account.dirty = False
            scope = account.scope
            self._accounts[scope] = account
            self._changed.add(scope)
            raised = ",".join(sorted(account.raised)) if account.raised else ""
            written.append(
                f"[{_text(scope)},{account.used_bytes},{account.used_objects},"
                f'{account.reserved_bytes},{account.reserved_objects},"{raised}"]'
            )
        for (place, scope), (more, counted) in tallies.items():
            numbers = [*more, *counted] if counted else more
            self._add_to_tally((place, scope), *numbers)
            added.append(f"[{_text(place)},{_text(scope)},{','.join(map(str, numbers))}]")
        parts = ",".join(written), ",".join(added), ",".join(put), ",".join(dropped)
        return "[[{}],[{}],[{}],[{}]]".format(*parts).encode()

    def replay(self, record: bytes) -> None:
        """Take over what another process, or an earlier memory of this one, put on record."""
        if record.startswith((uploads.MARK, *uploads.FORMER_MARKS)):
            self._replay_new(record)
            return
        self.spread()
        written: list[list[Any]]
        written, added, put, dropped = json.loads(record)
        self.accounts([scope for scope, *_ in written])
        for scope, used_bytes, used_objects, reserved_bytes, reserved_objects, raised in written:
            account = self._accounts.setdefault(scope, Account(scope))
            account.used_bytes, account.used_objects = used_bytes, used_objects
            account.reserved_bytes, account.reserved_objects = reserved_bytes, reserved_objects
            levels = frozenset(raised.split(",")) if raised else frozenset()
            if levels != account.raised:
                account.raised, account.calm_bytes = levels, -1
            self._changed.add(scope)
        for place, scope, *numbers in added:
            self._add_to_tally((place, scope), *numbers)
        for number in dropped:
            self.drop(number)
        for row in put:
            self.put(tuple(row) if len(row) == ROW_LENGTH else (*row, 0))

    def _add_to_tally(
        self,
        key: tuple[str, str],
        size: int,
        objects: int,
        counted_size: int = 0,
        counted_objects: int = 0,
    ) -> None:
        old = self._tallies.setdefault(key, [0, 0, 0, 0])
        old[0] += size
        old[1] += objects
        old[2] += counted_size
        old[3] += counted_objects

    # -- the file

    def write(self, db: sqlite3.Connection) -> None:
        """Give the file what it lacks, within a transaction."""
        write_accounts(db, [self._accounts[scope] for scope in self._changed])
        add_to_tallies(db, [(*key, *amounts) for key, amounts in self._tallies.items()])
        ended = [(number,) for number in self._rows if number not in self.held]
        db.executemany("DELETE FROM held WHERE number = ?", ended)
        rows = [self.held[number] for number in self._rows if number in self.held]
        db.executemany(WRITE_HELD, rows)
        db.executemany("INSERT OR IGNORE INTO noted VALUES (?, ?, ?)", self._noted)

    def written(self, tag: bytes, end: int) -> None:
        """The file has it all, and its log begins anew."""
        self.tag, self.end = tag, end
        self._changed.clear()
        self._tallies.clear()
        self._routes.clear()
        self._tails.clear()
        self._rows.clear()
        self._noted.clear()
        self._filed = set(self.held)
        if len(self._accounts) > _MOST_ACCOUNTS:
            self._accounts.clear()
