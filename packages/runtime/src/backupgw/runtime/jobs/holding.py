"""What a runner does with the jobs it holds: keep them, note how far they are, and end them.

Every write asks whether the job is still the runner's: of its epoch, and with a lease that goes on.
Where it is not, nothing is written, and the function says so. The same write may be repeated when
its answer was lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..database.tables.jobs import jobs
from .claims import LONGEST_BACKOFF, Claim
from .clock import Now, now
from .records import Job, Progress, State, as_json
from .rows import by_number, changed, job, tell


def _mine(claim: Claim, moment: Now) -> sa.ColumnElement[bool]:
    """The job is still this runner's, and its lease has not ended."""
    return sa.and_(
        jobs.c.number == claim.job.number,
        jobs.c.epoch == claim.epoch,
        jobs.c.held,
        jobs.c.lease_clock == moment.clock,
        jobs.c.lease_until >= moment.lease,
    )


def confirm(connection: sa.Connection, claim: Claim, lease: float) -> bool:
    """Lock the job's row until the transaction ends, so that nobody takes it away meanwhile.

    Returns:
        False: it is somebody else's by now, or nobody's.
    """
    moment = now(connection)
    changes = (
        sa.update(jobs)
        .where(_mine(claim, moment), jobs.c.state == State.RUNNING.value)
        .values(lease_until=moment.lease + lease)
    )
    return connection.execute(changes).rowcount == 1


@dataclass(frozen=True, slots=True)
class Held:
    """What the database says of a job that is running here."""

    cancel_requested: bool
    renewed: bool


def renew(
    connection: sa.Connection, running: Collection[int], lease: float
) -> dict[tuple[int, int], Held]:
    """Prolong the leases of what a process runs.

    Args:
        running: the jobs' numbers.

    Returns:
        what is still held, by number and epoch. What is not in it is lost.
    """
    moment = now(connection)
    good = sa.and_(
        jobs.c.number.in_(running),
        jobs.c.held,
        jobs.c.lease_clock == moment.clock,
        jobs.c.lease_until >= moment.lease,
    )
    # A row that is locked belongs to a transaction of this very process, which prolongs it itself.
    unlocked = sa.select(jobs.c.number).where(good).with_for_update(skip_locked=True)
    renewed = set(
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.number.in_(unlocked))
            .values(lease_until=moment.lease + lease)
            .returning(jobs.c.number)
        ).scalars()
    )
    return _held(connection, good, renewed)


def held(connection: sa.Connection, running: Collection[int]) -> dict[tuple[int, int], Held]:
    """Return which of these jobs are held, without prolonging anything."""
    return _held(connection, sa.and_(jobs.c.number.in_(running), jobs.c.held), set())


def _held(
    connection: sa.Connection, which: sa.ColumnElement[bool], renewed: Collection[int]
) -> dict[tuple[int, int], Held]:
    rows = connection.execute(
        sa.select(jobs.c.number, jobs.c.epoch, jobs.c.cancel_requested).where(which)
    )
    return {
        (row.number, row.epoch): Held(row.cancel_requested, row.number in renewed) for row in rows
    }


def report(connection: sa.Connection, claim: Claim, progress: Progress) -> bool:
    """Write how far a job is; False: it is not this runner's any more."""
    changes = (
        sa.update(jobs)
        .where(_mine(claim, now(connection)), jobs.c.state == State.RUNNING.value)
        .values(progress=as_json(progress.document(), "progress"), version=changed())
    )
    if connection.execute(changes).rowcount == 0:
        return False
    tell(connection, "progress", claim.job.number)
    return True


def finish(
    connection: sa.Connection,
    claim: Claim,
    state: State,
    *,
    result: str | None = None,
    error: str | None = None,
    progress: Progress | None = None,
) -> Job | None:
    """End a job for good.

    Returns:
        the job as it ended; None: it is not this runner's any more, nothing was written.
    """
    moment = now(connection)
    if _locked(connection, claim, moment) is None:
        return _said_before(connection, claim, state)
    values: dict[str, Any] = {
        "state": state.value,
        "held": False,
        "finished": moment.wall,
        "result": result,
        "error": error,
        "version": changed(),
    }
    if progress is not None:
        values["progress"] = as_json(progress.document(), "progress")
    _set(connection, claim, values)
    tell(connection, "finished", claim.job.number)
    return by_number(connection, claim.job.number)


def _locked(connection: sa.Connection, claim: Claim, moment: Now) -> sa.Row[Any] | None:
    """The job's row while it runs here, kept from others until the transaction ends."""
    return connection.execute(
        sa.select(jobs)
        .where(_mine(claim, moment), jobs.c.state == State.RUNNING.value)
        .with_for_update()
    ).one_or_none()


def _set(connection: sa.Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    connection.execute(sa.update(jobs).where(jobs.c.number == claim.job.number).values(values))


def _said_before(connection: sa.Connection, claim: Claim, state: State) -> Job | None:
    """The job, where an earlier try of the same write was done and only its answer got lost."""
    row = connection.execute(sa.select(jobs).where(jobs.c.number == claim.job.number)).one_or_none()
    if row is None or row.epoch != claim.epoch or row.held or row.state != state.value:
        return None
    return job(row)


def again(connection: sa.Connection, claim: Claim, wait: float, error: str) -> Job | None:
    """Put a job that failed back into its place in the line, to be tried after `wait` seconds.

    A job that was asked to stop meanwhile ends as cancelled.

    Returns:
        the job as it is now; None: it is not this runner's any more, nothing was written.
    """
    moment = now(connection)
    row = _locked(connection, claim, moment)
    if row is None:
        return _said_before(connection, claim, State.QUEUED)
    if row.cancel_requested:
        return finish(connection, claim, State.CANCELLED, error=error)
    values = {
        "state": State.QUEUED.value,
        "held": False,
        "wake": moment.wall + min(wait, LONGEST_BACKOFF),
        "error": error,
        "version": changed(),
    }
    _set(connection, claim, values)
    tell(connection, "queued", claim.job.number)
    return by_number(connection, claim.job.number)


def hand_over(connection: sa.Connection, claim: Claim, *, ended: bool) -> Job | None:
    """Put a job back into its place in the line, as if it had not been started.

    Args:
        ended: whether its handler has returned. Where it has not, it may still be at work until
            the process ends: nothing that it writes counts any more, but its key stays taken until
            the lease has run out.

    Returns:
        the job as it is now; None: nothing was written.
    """
    moment = now(connection)
    row = _locked(connection, claim, moment)
    if row is None:
        return None
    if row.cancel_requested and ended:
        return finish(connection, claim, State.CANCELLED)
    values = {
        "state": State.QUEUED.value,
        "held": not ended,
        "epoch": jobs.c.epoch + 1,
        "attempts": jobs.c.attempts - 1,
        "wake": 0.0,
        "version": changed(),
    }
    if row.cancel_requested:
        values |= {"state": State.CANCELLED.value, "finished": moment.wall}
    _set(connection, claim, values)
    tell(connection, "queued", claim.job.number)
    return by_number(connection, claim.job.number)


def overdue(connection: sa.Connection, claim: Claim, error: str) -> Job | None:
    """End a job whose handler does not stop. Its key stays taken for as long as it runs."""
    moment = now(connection)
    changes = (
        sa.update(jobs)
        .where(_mine(claim, moment), jobs.c.state == State.RUNNING.value)
        .values(state=State.FAILED.value, finished=moment.wall, error=error, version=changed())
    )
    if connection.execute(changes).rowcount == 0:
        return None
    tell(connection, "finished", claim.job.number)
    return by_number(connection, claim.job.number)


def let_go(connection: sa.Connection, claim: Claim) -> None:
    """Free the key of a job that had ended before its handler did."""
    changes = (
        sa.update(jobs)
        .where(jobs.c.number == claim.job.number, jobs.c.epoch == claim.epoch, jobs.c.held)
        .values(held=False, version=changed())
    )
    if connection.execute(changes).rowcount:
        tell(connection, "queued", claim.job.number)
