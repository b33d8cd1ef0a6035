"""The audit log: who changed what, in the transaction that changed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from backupgw.runtime.database import Connection, clock
from backupgw.runtime.database.tables.vfs import vfs_audit

from .identity import Identity

KEPT = 400 * 86_400.0
"""Seconds that an entry is kept: more than a year."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change.

    Attributes:
        number: grows.
        time: seconds since 1970.
        actor: who did it; via: by what right.
        action: such as "folder.rename".
        folder: which, by id; subject: which user or group.
        details: what was, what is.
    """

    number: int
    time: float
    actor: str
    via: str
    action: str
    folder: str | None
    subject: str | None
    details: Mapping[str, Any]


def note(
    connection: Connection,
    who: Identity,
    action: str,
    *,
    folder: str | None = None,
    subject: object = None,
    **details: object,
) -> None:
    """Write a change down. Details are JSON's, and hold no secret."""
    connection.execute(
        vfs_audit.insert().values(
            time=clock(),
            actor=who.user,
            via=who.via,
            action=action,
            folder=folder,
            subject=None if subject is None else str(subject),
            details=json.dumps(details, default=str),
        )
    )


def entries(
    connection: Connection,
    *,
    after: int = 0,
    limit: int = 100,
    folder: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    newest_first: bool = False,
) -> list[Entry]:
    """Return entries in the order of their numbers.

    Args:
        after: the number of the last one of the page before; 0 for the first page.
    """
    query = sa.select(vfs_audit)
    if newest_first:
        query = query.order_by(vfs_audit.c.number.desc())
        if after:
            query = query.where(vfs_audit.c.number < after)
    else:
        query = query.where(vfs_audit.c.number > after).order_by(vfs_audit.c.number)
    for column, wanted in (
        (vfs_audit.c.folder, folder),
        (vfs_audit.c.actor, actor),
        (vfs_audit.c.action, action),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return [
        Entry(
            row.number,
            row.time,
            row.actor,
            row.via,
            row.action,
            row.folder,
            row.subject,
            json.loads(row.details),
        )
        for row in connection.execute(query.limit(limit))
    ]


def forget_old(connection: Connection, now: float) -> int:
    """Remove what is older than `KEPT`; return how many."""
    return connection.execute(vfs_audit.delete().where(vfs_audit.c.time < now - KEPT)).rowcount
