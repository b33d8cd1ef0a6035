"""How a job gets into the database, once, and how it is called off."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..database.tables.jobs import jobs
from .clock import now
from .errors import JobConflict
from .records import Job, State
from .rows import by_number, changed, find, job, queued, serialize, tell

_UNFINISHED = (State.QUEUED.value, State.RUNNING.value)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is asked for.

    Attributes:
        id: the caller's; the same again is the same job. None: a random one.
        arguments: JSON, checked.
        unique: an unfinished job of the same kind and key is as good.
        not_before: seconds since the epoch; None: now.
        deadline: seconds after it is due.
    """

    kind: str
    arguments: str
    key: str | None = None
    id: str | None = None
    unique: bool = False
    not_before: float | None = None
    deadline: float | None = None
    schedule: str | None = None


def insert(connection: sa.Connection, wanted: Submission, wall: float) -> Job:
    """Put a job into the queue, or return the one that is there already.

    Args:
        wall: the time of the submission, by the database's clock.

    Raises:
        JobConflict: its id belongs to another job.
    """
    if wanted.unique:
        serialize(connection)
        row = connection.execute(
            sa.select(jobs)
            .where(
                jobs.c.kind == wanted.kind,
                jobs.c.key.is_not_distinct_from(wanted.key),
                jobs.c.state.in_(_UNFINISHED),
            )
            .order_by(jobs.c.number.desc())
            .limit(1)
        ).one_or_none()
        if row is not None:
            return job(row)
    due = wall
    if wanted.key is not None:
        # Should the clock go back, whoever comes later still stands behind.
        last = connection.execute(
            sa.select(sa.func.max(jobs.c.due)).where(
                jobs.c.key == wanted.key,
                queued(),
                ~jobs.c.delayed,
            )
        ).scalar_one()
        due = wall if last is None else max(wall, last)
    delayed = wanted.not_before is not None and wanted.not_before > due
    if wanted.not_before is not None and delayed:
        due = wanted.not_before
    job_id = secrets.token_hex(8) if wanted.id is None else wanted.id
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    row = connection.execute(
        make(jobs)
        .values(
            id=job_id,
            kind=wanted.kind,
            key=wanted.key,
            state=State.QUEUED.value,
            arguments=wanted.arguments,
            created=wall,
            due=due,
            delayed=delayed,
            wake=0.0,
            deadline=None if wanted.deadline is None else due + wanted.deadline,
            attempts=0,
            losses=0,
            cancel_requested=False,
            epoch=0,
            held=False,
            schedule=wanted.schedule,
            version=1,
        )
        .on_conflict_do_nothing(index_elements=[jobs.c.id])
        .returning(jobs)
    ).one_or_none()
    if row is not None:
        tell(connection, "submitted", row.number)
        return job(row)
    known = find(connection, job_id)
    if known is None:
        raise JobConflict(f"the job {job_id} was removed just now; submit it again")
    stored = connection.execute(
        sa.select(jobs.c.arguments).where(jobs.c.number == known.number)
    ).scalar_one()
    if (known.kind, known.key, stored) != (wanted.kind, wanted.key, wanted.arguments):
        raise JobConflict(
            f"there is a job {job_id} already, of the kind {known.kind} and the key {known.key}, "
            "and this one differs; give it another id"
        )
    return known


def cancel(connection: sa.Connection, job_id: str) -> tuple[Job, bool] | None:
    """Cancel a job that waits, or ask one that runs to stop; None: there is no such job.

    Returns:
        the job, and whether anything was changed: it had not finished, nor was it asked before.
    """
    row = connection.execute(
        sa.select(jobs).where(jobs.c.id == job_id).with_for_update()
    ).one_or_none()
    if row is None:
        return None
    if State(row.state).finished or row.cancel_requested:
        return job(row), False
    values: dict[str, Any] = {"cancel_requested": True, "version": changed()}
    if row.state == State.QUEUED.value:
        values |= {"state": State.CANCELLED.value, "finished": now(connection).wall}
    connection.execute(sa.update(jobs).where(jobs.c.number == row.number).values(values))
    tell(connection, "cancel" if row.state == State.RUNNING.value else "finished", row.number)
    return by_number(connection, row.number), True
