"""What a process knows of a ledger in SQLite: the file's rows in use, and what its log added.

Every process has its own, and all are the same, since each reads what the others append to the
log. It is thrown away whenever there is doubt; the file and the log have it all.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from . import sqlite_uploads as uploads
from .accounts import Account
from .records import Amount
from .sqlite_rows import Row, add_to_tallies, read_accounts, write_accounts

_MOST_ACCOUNTS = 10_000
"""Accounts remembered when the log begins anew."""

_text = json.encoder.encode_basestring_ascii
_scopes_text = lru_cache(maxsize=1024)(json.dumps)


def _row_text(row: Row) -> str:
    number, session, deadline, place, holds, name, scopes, siblings, *amounts = row
    start = f"[{number},{_number(session)},{deadline!r},{_text(place)},{_text(holds)}"
    if name is None:
        return start + ",null,null,null,null,null,null,null]"
    last = "null" if siblings is None else _text(siblings)
    before_bytes, before_objects, after_bytes, after_objects = amounts
    return (
        f"{start},{_text(name)},{_text(scopes)},{last},"
        f"{before_bytes},{before_objects},{after_bytes},{after_objects}]"
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
        counting: a count of a place is in progress; the rest is empty then, and nothing is logged.
    """

    def __init__(self, tag: bytes, end: int, *, counting: bool) -> None:
        self.tag = tag
        self.end = end
        self.counting = counting
        self.held: dict[int, Row] = {}
        self.sessions: list[tuple[int, str]] = []
        self._accounts: dict[str, Account] = {}
        self._named: dict[tuple[str, str], list[int]] = {}
        # What the file lacks, and the rows that it has.
        self._changed: set[str] = set()
        self._tallies: dict[tuple[str, str], list[int]] = {}
        self._routes: dict[tuple[str, str], uploads.Route] = {}
        self._short_routes: dict[tuple[str, tuple[str, ...]], uploads.Route] = {}
        self._new: dict[int, uploads.New] = {}
        self._rows: set[int] = set()
        self._filed: set[int] = set()

    def load(self, db: sqlite3.Connection) -> None:
        """Fill it with the file's rows."""
        for row in db.execute("SELECT * FROM held").fetchall():
            self.put(row)
        self._filed, self._rows = self._rows, set()
        self.sessions = db.execute("SELECT id, boot FROM sessions").fetchall()

    # -- accounts

    def accounts(
        self, connect: Callable[[], sqlite3.Connection], scopes: Sequence[str]
    ) -> list[Account]:
        """Return those of the accounts that are on record."""
        known = self._accounts
        unknown = [scope for scope in scopes if scope not in known]
        if unknown:
            for account in read_accounts(connect(), unknown):
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
            self._named.setdefault((row[3], name), []).append(number)

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
            numbers = self._named[key]
            if len(numbers) == 1:
                del self._named[key]
            else:
                numbers.remove(number)
        return row

    def named(self, place: str, name: str) -> list[int]:
        """Return the numbers of the intents for a name."""
        return list(self._named.get((place, name), ()))

    # -- new items

    def intend_new(
        self,
        place: str,
        scopes: tuple[str, ...],
        intent: uploads.Intent,
        settled: Sequence[int],
    ) -> bytes | None:
        """Let intents of new items end as intended, and record one more.

        All in one frame, but for what is rare: this is a part of each upload.

        Returns:
            the record of it; None where that needs books, and nothing was done.
        """
        route = self._short_routes.get((place, scopes)) or self._short_route(place, scopes)
        number, deadline, name, size = intent
        if route is None or (self._named and (place, name) in self._named):
            return None
        for account in route.accounts:
            if not (
                0 <= account.used_bytes <= account.calm_bytes - account.reserved_bytes - size
                and 0 <= account.used_objects <= account.calm_objects - account.reserved_objects - 1
            ):
                return None
        new = self._new
        for ended in settled:
            if ended not in new and not self._knows_route(ended):
                return None
        for ended in settled:
            item = new.pop(ended, None)
            if item is not None:
                item[0].use(item[3], 1)
            else:
                self._settle(ended)
        for account in route.accounts:
            account.reserved_bytes += size
            account.reserved_objects += 1
        new[number] = route, deadline, name, size
        return uploads.record(settled, intent, route)

    def spread(self) -> None:
        """Give new items rows like all others have."""
        while self._new:
            number, (route, deadline, name, size) = self._new.popitem()
            self._put_new(route, (number, deadline, name, size))

    def _put_new(self, route: uploads.Route, intent: uploads.Intent) -> None:
        number, deadline, name, size = intent
        start = number, number >> 32, deadline, route.place, route.holds(size)
        self.put((*start, name, route.scopes_text, None, 0, 0, size, 1))

    def _knows_route(self, number: int) -> bool:
        row = self.held.get(number)
        return row is None or (row[3], row[6]) in self._routes

    def _settle(self, number: int) -> None:
        row = self.drop(number)
        if row is not None:
            self._routes[row[3], row[6]].use(row[10], row[11])

    def _short_route(self, place: str, scopes: tuple[str, ...]) -> uploads.Route | None:
        route = self._route(place, _scopes_text(scopes), scopes)
        if route is not None:
            self._short_routes[place, scopes] = route
        return route

    def _route(self, place: str, text: str, scopes: Sequence[str]) -> uploads.Route | None:
        """Return what items of these scopes share; None where accounts are not known yet."""
        route = self._routes.get((place, text))
        if route is None:
            known = self._accounts
            if not scopes or len(set(scopes)) < len(scopes) or not known.keys() >= set(scopes):
                return None
            self._changed.update(scopes)
            tallies = [self._tallies.setdefault((place, scope), [0, 0]) for scope in scopes]
            accounts = [known[scope] for scope in scopes]
            route = self._routes[place, text] = uploads.Route(place, scopes, accounts, tallies)
        return route

    def _replay_new(self, connect: Callable[[], sqlite3.Connection], record: bytes) -> None:
        settled, intent, place, scopes = uploads.read(record)
        self.spread()
        for number in settled:
            row = self.drop(number)
            if row is not None:
                route = self._surely_route(connect, row[3], row[6], json.loads(row[6]))
                route.use(row[10], row[11])
        route = self._surely_route(connect, place, json.dumps(scopes), scopes)
        for account in route.accounts:
            account.reserved_bytes += intent[3]
            account.reserved_objects += 1
        self._put_new(route, intent)

    def _surely_route(
        self,
        connect: Callable[[], sqlite3.Connection],
        place: str,
        text: str,
        scopes: Sequence[str],
    ) -> uploads.Route:
        if (place, text) not in self._routes:
            self.accounts(connect, scopes)
            for scope in scopes:
                self._accounts.setdefault(scope, Account(scope))
        route = self._route(place, text, scopes)
        assert route is not None
        return route

    # -- the log

    def record(
        self,
        accounts: Iterable[Account],
        tallies: dict[tuple[str, str], Amount],
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
        for (place, scope), (size, objects) in tallies.items():
            self._add_to_tally((place, scope), size, objects)
            added.append(f"[{_text(place)},{_text(scope)},{size},{objects}]")
        parts = ",".join(written), ",".join(added), ",".join(put), ",".join(dropped)
        return "[[{}],[{}],[{}],[{}]]".format(*parts).encode()

    def replay(self, connect: Callable[[], sqlite3.Connection], record: bytes) -> None:
        """Take over what another process, or an earlier memory of this one, put on record."""
        if record.startswith(uploads.MARK):
            self._replay_new(connect, record)
            return
        self.spread()
        written: list[list[Any]]
        written, added, put, dropped = json.loads(record)
        self.accounts(connect, [scope for scope, *_ in written])
        for scope, used_bytes, used_objects, reserved_bytes, reserved_objects, raised in written:
            account = self._accounts.setdefault(scope, Account(scope))
            account.used_bytes, account.used_objects = used_bytes, used_objects
            account.reserved_bytes, account.reserved_objects = reserved_bytes, reserved_objects
            levels = frozenset(raised.split(",")) if raised else frozenset()
            if levels != account.raised:
                account.raised, account.calm_bytes = levels, -1
            self._changed.add(scope)
        for place, scope, size, objects in added:
            self._add_to_tally((place, scope), size, objects)
        for number in dropped:
            self.drop(number)
        for row in put:
            self.put(tuple(row))

    def _add_to_tally(self, key: tuple[str, str], size: int, objects: int) -> None:
        old = self._tallies.get(key)
        if old is None:
            self._tallies[key] = [size, objects]
        else:
            old[0] += size
            old[1] += objects

    # -- the file

    def write(self, db: sqlite3.Connection) -> None:
        """Give the file what it lacks, within a transaction."""
        write_accounts(db, [self._accounts[scope] for scope in self._changed])
        add_to_tallies(db, [(*key, *amount, 0, 0) for key, amount in self._tallies.items()])
        ended = [(number,) for number in self._rows if number not in self.held]
        db.executemany("DELETE FROM held WHERE number = ?", ended)
        rows = [self.held[number] for number in self._rows if number in self.held]
        db.executemany("INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)

    def written(self, tag: bytes, end: int) -> None:
        """The file has it all, and its log begins anew."""
        self.tag, self.end = tag, end
        self._changed.clear()
        self._tallies.clear()
        self._routes.clear()
        self._short_routes.clear()
        self._rows.clear()
        self._filed = set(self.held)
        if len(self._accounts) > _MOST_ACCOUNTS:
            self._accounts.clear()
