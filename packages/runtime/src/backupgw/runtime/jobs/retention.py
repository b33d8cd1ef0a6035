"""Finished jobs are kept for a while, and then removed together with their steps."""

from __future__ import annotations

import sqlalchemy as sa

from ..database.tables.jobs import jobs
from .clock import now

BATCH = 500
"""Jobs removed in one transaction, so that nobody waits long for it."""


def remove_old(connection: sa.Connection, keep: float, keep_count: int) -> int:
    """Remove some of what need not be kept any more.

    Args:
        keep: seconds that a job is kept after it has finished.
        keep_count: finished jobs that are kept at most, the latest.

    Returns:
        how many were removed; BATCH or more: there may be others.
    """
    finished = jobs.c.finished.is_not(None)
    # The first of those that are too many, and with it everything as old.
    limit = connection.execute(
        sa.select(jobs.c.finished)
        .where(finished)
        .order_by(jobs.c.finished.desc())
        .offset(keep_count)
        .limit(1)
    ).scalar_one_or_none()
    before = now(connection).wall - keep
    old = (
        jobs.c.finished < before
        if limit is None
        else sa.or_(jobs.c.finished < before, jobs.c.finished <= limit)
    )
    numbers = (
        sa.select(jobs.c.number)
        # A runner that is still at work on a job that ended as overdue knows it by its row.
        .where(finished, ~jobs.c.held, old)
        .order_by(jobs.c.finished)
        .limit(BATCH)
    )
    return connection.execute(sa.delete(jobs).where(jobs.c.number.in_(numbers))).rowcount
