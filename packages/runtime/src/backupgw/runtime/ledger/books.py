"""The books of one transaction in PostgreSQL.

Two round trips: what the steps said they need is fetched in one, and what they changed is written,
and committed, in the other. In between everything happens in memory. A step that comes upon
something else (what a dead process left, a count) asks for it by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from psycopg import Connection

from backupgw.kvstore.ledger import Amount, Limit
from backupgw.kvstore.ledger.accounts import Account
from backupgw.kvstore.ledger.held import HeldBooks, HeldRow, load_holds

from .link import CHANNEL, CLAIMING, Row, key_of

DEAD = 0
"""The session of intents whose process has died."""

FORGOTTEN = 24 * 3600.0
"""Seconds after which a buried session is removed."""

DEADLINE = (
    "greatest(deadline, extract(epoch FROM pg_postmaster_start_time())::double precision + lease)"
)
"""When a session ends unless it is heard of: nobody could be heard before the server's start."""

_ACCOUNT = (
    "scope, hard_bytes, hard_objects, soft_bytes, soft_objects,"
    " used_bytes, used_objects, reserved_bytes, reserved_objects, raised"
)
_HELD = (
    "number, session, deadline, place, holds, key, name, scopes, siblings,"
    " before_bytes, before_objects, after_bytes, after_objects"
)

READ_ACCOUNTS = f"SELECT {_ACCOUNT} FROM ledger_scopes WHERE scope = ANY(%s)"  # noqa: S608
READ_HELD = f"SELECT {_HELD} FROM ledger_held WHERE number = ANY(%s)"  # noqa: S608
READ_NAMED = f"SELECT {_HELD} FROM ledger_held WHERE key = ANY(%s) AND name IS NOT NULL"  # noqa: S608

_WRITE_ACCOUNTS = f"""
    INSERT INTO ledger_scopes ({_ACCOUNT}) SELECT * FROM unnest(%s::text[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
        %s::bigint[], %s::text[])
    ON CONFLICT (scope) DO UPDATE SET
        hard_bytes = excluded.hard_bytes, hard_objects = excluded.hard_objects,
        soft_bytes = excluded.soft_bytes, soft_objects = excluded.soft_objects,
        used_bytes = excluded.used_bytes, used_objects = excluded.used_objects,
        reserved_bytes = excluded.reserved_bytes, reserved_objects = excluded.reserved_objects,
        raised = excluded.raised
"""  # noqa: S608
_ADD_TO_TALLIES = """
    INSERT INTO ledger_tallies AS tally SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::bigint[])
    ON CONFLICT (place, scope) DO UPDATE SET
        bytes = tally.bytes + excluded.bytes, objects = tally.objects + excluded.objects,
        counted_bytes = tally.counted_bytes + excluded.counted_bytes,
        counted_objects = tally.counted_objects + excluded.counted_objects
"""
_WRITE_HELD = f"""
    INSERT INTO ledger_held ({_HELD}) SELECT * FROM unnest(%s::bigint[], %s::bigint[],
        %s::double precision[], %s::text[], %s::text[], %s::bytea[], %s::text[], %s::text[],
        %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    ON CONFLICT (number) DO UPDATE SET
        session = excluded.session, deadline = excluded.deadline, place = excluded.place,
        holds = excluded.holds, key = excluded.key, name = excluded.name,
        scopes = excluded.scopes, siblings = excluded.siblings,
        before_bytes = excluded.before_bytes, before_objects = excluded.before_objects,
        after_bytes = excluded.after_bytes, after_objects = excluded.after_objects
"""  # noqa: S608


@dataclass(slots=True)
class Stored:
    """A row of what is held, with whose it is and until when."""

    row: HeldRow
    session: int | None
    deadline: float


class Rows(HeldBooks):
    """What the books hold in memory of the tables, and what they write back."""

    def __init__(self, db: Connection[Row], *, session: int, now: float, counting: bool) -> None:
        super().__init__(session=session, now=now)
        self.db = db
        self._counting = counting
        self._held: dict[int, Stored | None] = {}
        self._named: dict[bytes, set[int]] = {}
        self._unwritten: set[int] = set()

    # -- what was fetched

    def fetched_accounts(self, asked: Iterable[str], rows: Iterable[Row]) -> None:
        for row in rows:
            self._accounts[row[0]] = _account(row)
        for scope in asked:
            if scope not in self._accounts:
                self._accounts[scope] = Account(scope)

    def fetched_held(self, numbers: Iterable[int], rows: Iterable[Row]) -> None:
        for row in rows:
            if row[0] not in self._held:
                self._held[row[0]] = _stored(row)
        for number in numbers:
            self._held.setdefault(number, None)

    def fetched_named(self, keys: Iterable[bytes], rows: Iterable[Row]) -> None:
        for key in keys:
            self._named.setdefault(key, set())
        for row in rows:
            if row[0] not in self._held:
                self._held[row[0]] = _stored(row)
            if self._held[row[0]] is not None:
                self._named[row[5]].add(row[0])

    def _stored(self, number: int) -> Stored | None:
        if number not in self._held:
            self.fetched_held([number], self.db.execute(READ_HELD, ([number],)).fetchall())
        return self._held[number]

    # -- accounts

    def load(self, scopes: Sequence[str]) -> Iterator[Account]:
        rows = self.db.execute(READ_ACCOUNTS, (list(scopes),)).fetchall()
        return map(_account, rows)

    def all_accounts(self, after: str, most: int) -> list[Account]:
        self.write_back()
        rows = self.db.execute(
            f"SELECT {_ACCOUNT} FROM ledger_scopes WHERE scope > %s ORDER BY scope LIMIT %s",  # noqa: S608
            (after, most),
        ).fetchall()
        return list(map(_account, rows))

    # -- rows

    def holds_of(self, number: int) -> dict[str, Amount]:
        stored = self._stored(number)
        return {} if stored is None else load_holds(stored.row.holds)

    def put(self, row: HeldRow, deadline: float) -> None:
        self._write(Stored(row, self.session, deadline))

    def _write(self, stored: Stored) -> None:
        row = stored.row
        self._held[row.number] = stored
        self._unwritten.add(row.number)
        if row.name is not None:
            named = self._named.get(key_of(row.place, row.name))
            if named is not None:
                named.add(row.number)
            self.note(row.place, row.name)

    def take(self, number: int) -> HeldRow | None:
        stored = self._stored(number)
        if stored is None:
            return None
        self.drop(number)
        return stored.row

    def drop(self, number: int) -> bool:
        stored = self._stored(number)
        if stored is None:
            return False
        self._held[number] = None
        self._unwritten.add(number)
        row = stored.row
        if row.name is not None:
            self._named.get(key_of(row.place, row.name), set()).discard(number)
        return True

    def renew(self, number: int, deadline: float) -> None:
        stored = self._stored(number)
        if stored is not None:
            self._write(Stored(stored.row, stored.session, deadline))

    def park(self, number: int, deadline: float) -> None:
        stored = self._stored(number)
        if stored is not None:
            self._write(Stored(stored.row, None, deadline))

    def open_changes(self, place: str, name: str) -> list[int]:
        key = key_of(place, name)
        if key not in self._named:
            self.flush_held()
            self.fetched_named([key], self.db.execute(READ_NAMED, ([key],)).fetchall())
        return sorted(self._named[key])

    def effect_of(self, number: int, place: str, name: str) -> Amount | None:
        stored = self._stored(number)
        if stored is None or (stored.row.place, stored.row.name) != (place, name):
            return None
        return stored.row.after

    # -- writing back

    def flush_held(self) -> None:
        """Write what is held."""
        gone = [number for number in self._unwritten if self._held[number] is None]
        rows = [_held_row(stored) for number in self._unwritten if (stored := self._held[number])]
        self._unwritten.clear()
        if gone:
            self.db.execute("DELETE FROM ledger_held WHERE number = ANY(%s)", (gone,))
        if rows:
            self.db.execute(_WRITE_HELD, _columns(rows))

    def write_back(self) -> None:
        touched = self.touched()
        if touched:
            self.db.execute(_WRITE_ACCOUNTS, _columns(list(map(_account_row, touched))))
        tallies, self._tallies = self._tallies, {}
        if tallies:
            rows: list[Row] = [(*key, *more, *counted) for key, (more, counted) in tallies.items()]
            self.db.execute(_ADD_TO_TALLIES, _columns(rows))
        self.flush_held()

    def _numbers(self, statement: str, values: Sequence[object]) -> list[int]:
        """Return the numbers of rows that a SELECT of READ_HELD's columns finds, fetched."""
        self.flush_held()
        rows = self.db.execute(statement, values).fetchall()
        self.fetched_held((), rows)
        return [row[0] for row in rows]

    @abstractmethod
    def void_counts_of(self, session: int) -> None:
        """Forget what counts of a session have found."""

    # -- who died

    def reclaim(self) -> None:
        """Give back reservations that expired or whose session ended; mark the dead's intents."""
        self.release_all(
            self._numbers(
                f"SELECT {_HELD} FROM ledger_held WHERE deadline < %s AND name IS NULL",  # noqa: S608
                (self.now,),
            )
        )
        ended = self.db.execute(
            f"SELECT id FROM ledger_sessions WHERE NOT dead AND id <> %s AND {DEADLINE} < %s",  # noqa: S608
            (self.session, self.now),
        ).fetchall()
        for (session,) in ended:
            self.bury(session)

    def bury(self, session: int) -> None:
        db = self.db
        self.release_all(
            self._numbers(
                f"SELECT {_HELD} FROM ledger_held WHERE session = %s AND name IS NULL",  # noqa: S608
                (session,),
            )
        )
        # What is cached of its intents would be written back as the session's.
        self.flush_held()
        for stored in self._held.values():
            if stored is not None and stored.session == session:
                stored.session = DEAD
        self.void_counts_of(session)
        db.execute("UPDATE ledger_held SET session = %s WHERE session = %s", (DEAD, session))
        # From here on nobody claims anything for it.
        db.execute("SELECT pg_advisory_xact_lock(%s)", (CLAIMING,))
        db.execute("UPDATE ledger_sessions SET dead = true WHERE id = %s", (session,))
        freed = db.execute(
            "DELETE FROM ledger_claims WHERE NOT EXISTS"
            " (SELECT 1 FROM ledger_sessions WHERE id = session AND NOT dead)"
        ).rowcount
        if freed:
            self.notify()
        db.execute(
            "DELETE FROM ledger_sessions WHERE dead AND deadline < %s", (self.now - FORGOTTEN,)
        )

    def notify(self) -> None:
        """Let those who wait for a claim look again, once this transaction is done."""
        self.db.execute("SELECT pg_notify(%s, '')", (CHANNEL,))

    def orphans(self, place: str) -> list[tuple[int, str]]:
        self.write_back()
        rows = self.db.execute(
            "SELECT number, name FROM ledger_held WHERE place = %(place)s AND name IS NOT NULL"
            " AND (session = %(dead)s OR deadline < %(now)s)",
            {"place": place, "dead": DEAD, "now": self.now},
        ).fetchall()
        return [(number, name) for number, name in rows]


def _account(row: Row) -> Account:
    scope, *limits, used_bytes, used_objects, reserved_bytes, reserved_objects, raised = row
    return Account(
        scope,
        Limit(*limits),
        used_bytes,
        used_objects,
        reserved_bytes,
        reserved_objects,
        frozenset(raised.split(",")) if raised else frozenset(),
    )


def _account_row(account: Account) -> Row:
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
        ",".join(sorted(account.raised)),
    )


def _stored(row: Row) -> Stored:
    number, session, deadline, place, holds, _, name, scopes, siblings, *numbers = row
    before, after = Amount(*numbers[:2]), Amount(*numbers[2:])
    held = HeldRow(number, place, holds, name, scopes, siblings, before, after)
    return Stored(held, session, deadline)


def _held_row(stored: Stored) -> Row:
    row = stored.row
    key = None if row.name is None else key_of(row.place, row.name)
    named = (key, row.name, row.scopes, row.siblings, *row.before, *row.after)
    return (row.number, stored.session, stored.deadline, row.place, row.holds, *named)


def _columns(rows: Sequence[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
