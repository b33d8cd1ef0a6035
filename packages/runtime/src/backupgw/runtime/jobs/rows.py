"""From rows of the database to records, and what SQL the modules here share."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from ..database.tables.jobs import jobs
from .clock import not_frozen
from .records import Job, Progress, State

CLAIMS_LOCK = 0x6261_636B_6A6F_6273
"""The advisory lock of PostgreSQL under which jobs are claimed: limits are exact."""
CHANNEL = "backupgw_jobs"
"""Where PostgreSQL tells of changes: "KIND NUMBER"."""


def job(row: sa.Row[Any]) -> Job:
    """Return the record of a row of `jobs`."""
    fields = row._mapping
    return Job(
        number=fields["number"],
        id=fields["id"],
        kind=fields["kind"],
        key=fields["key"],
        state=State(fields["state"]),
        arguments=json.loads(fields["arguments"]),
        created=fields["created"],
        due=fields["due"],
        deadline=fields["deadline"],
        started=fields["started"],
        finished=fields["finished"],
        attempts=fields["attempts"],
        losses=fields["losses"],
        cancel_requested=fields["cancel_requested"],
        runner=fields["runner"],
        progress=Progress(**json.loads(fields["progress"])) if fields["progress"] else None,
        result=None if fields["result"] is None else json.loads(fields["result"]),
        error=fields["error"],
        schedule=fields["schedule"],
        version=fields["version"],
    )


def queued(table: Any = jobs) -> sa.ColumnElement[bool]:
    """Return the condition that a job waits."""
    # Not a parameter: the indexes of what is queued are for those who certainly ask for that.
    return table.c.state == sa.literal_column(f"'{State.QUEUED.value}'")  # type: ignore[no-any-return]


def find(connection: sa.Connection, job_id: str) -> Job | None:
    """Return a job by its id."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
    return None if row is None else job(row)


def by_number(connection: sa.Connection, number: int) -> Job:
    """Return a job that is known to be there."""
    return job(connection.execute(sa.select(jobs).where(jobs.c.number == number)).one())


def changed() -> Any:
    """Return what every update of a job sets."""
    return jobs.c.version + 1


def serialize(connection: sa.Connection) -> None:
    """Wait until no other transaction claims or submits; SQLite's write transactions do anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(not_frozen(), sa.func.pg_advisory_xact_lock(CLAIMS_LOCK)))


def tell(connection: sa.Connection, change: str, number: int) -> None:
    """Tell the other gateways of a change when the transaction commits."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{change} {number}")))
