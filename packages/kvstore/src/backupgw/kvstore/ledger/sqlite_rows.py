"""Rows of the SQLite file of a ledger: how accounts, tallies and what is held lie in its tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from .accounts import Account
from .held import HeldRow
from .records import Amount, Limit

Row = tuple[Any, ...]
"""A row of `held`, in the order of its columns."""

ROW_LENGTH = 13
"""Up to version 5 the last column was missing, the number of a file."""

READ_ACCOUNTS = (
    "SELECT scope, hard_bytes, hard_objects, soft_bytes, soft_objects,"
    " used_bytes, used_objects, reserved_bytes, reserved_objects, raised FROM scopes"
)

WRITE_HELD = "INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
"""Writes a `Row`."""

_AT_ONCE = 8
"""Rows written by one statement; few, so that the statements stay in SQLite's cache."""

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

_NO_EFFECT: Row = (None,) * 7


def read_accounts(db: sqlite3.Connection, scopes: Sequence[str]) -> Iterable[Account]:
    """Return those of the accounts that there are."""
    marks = ",".join("?" * len(scopes))
    rows = db.execute(f"{READ_ACCOUNTS} WHERE scope IN ({marks})", scopes).fetchall()
    return map(account_of, rows)


def account_of(row: Row) -> Account:
    """Return the account of a row that `READ_ACCOUNTS` gave."""
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


_limit = lru_cache(maxsize=1024)(Limit)


def write_accounts(db: sqlite3.Connection, accounts: Iterable[Account]) -> None:
    """Write accounts over what was there."""
    _upsert(db, _WRITE_ACCOUNTS, [_account_row(account) for account in accounts])


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
        ",".join(sorted(account.raised)) if account.raised else "",
    )


def add_to_tallies(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add (place, scope, bytes, objects, counted bytes, counted objects) to what is there."""
    _upsert(db, _ADD_TO_TALLIES, rows)


def _upsert(db: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    # A few rows in one statement: each statement hands the interpreter's lock around.
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        marks = f"({','.join('?' * len(part[0]))})"
        db.execute(
            statement.format(",".join([marks] * len(part))),
            [value for row in part for value in row],
        )


def row_of(held: HeldRow, session: int, deadline: float) -> Row:
    """Return the row that stands for what a session holds."""
    if held.name is None:
        return (held.number, session, deadline, held.place, held.holds, *_NO_EFFECT, 0)
    return (
        held.number,
        session,
        deadline,
        held.place,
        held.holds,
        held.name,
        held.scopes,
        held.siblings,
        *held.before,
        *held.after,
        held.file,
    )


def held_of(row: Row) -> HeldRow:
    """Return what a row stands for."""
    number, _, _, place, holds, name, scopes, siblings, *amounts, file = row
    if name is None:
        return HeldRow(number, place, holds)
    before, after = Amount(*amounts[:2]), Amount(*amounts[2:])
    return HeldRow(number, place, holds, name, scopes, siblings, before, after, file)
