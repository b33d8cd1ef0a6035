"""Jobs, their steps, and the schedules that submit them. Times are seconds since 1970."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from . import metadata

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME: sa.Double[float] = sa.Double()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    # The place in the line of its key: by due, then by number.
    sa.Column("due", _TIME, nullable=False),
    # Somebody asked for a later time than that of the submission.
    sa.Column("delayed", sa.Boolean, nullable=False),
    # The next attempt is not before this. It does not change the place in the line.
    sa.Column("wake", _TIME, nullable=False),
    sa.Column("deadline", _TIME),
    sa.Column("started", _TIME),
    sa.Column("finished", _TIME),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    # Who may write: grows whenever the right to do so changes hands.
    sa.Column("epoch", sa.Integer, nullable=False),
    # Whether a runner occupies the key and a place among those running.
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("runner", sa.Text),
    sa.Column("lease_until", _TIME),
    sa.Column("lease_clock", sa.Text),
    sa.Column("progress", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("schedule", sa.Text),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint(
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
    ),
    sa.UniqueConstraint("id"),
    # A number is never given twice: order, and what has been told of a job, go by it.
    sqlite_autoincrement=True,
)


def _index(name: str, *columns: sa.Column[Any], rows: str, unique: bool = False) -> None:
    # Written as SQLAlchemy writes a condition: SQLite uses an index of some rows for no other.
    sa.Index(
        name,
        *columns,
        unique=unique,
        sqlite_where=sa.text(rows.replace("held", "held = 1").replace("delayed", "delayed = 1")),
        postgresql_where=sa.text(rows),
    )


# What nothing in the program may break: one at a time for each key.
_index("jobs_one_of_a_key", jobs.c.key, rows="held", unique=True)
_index("jobs_held", jobs.c.lease_until, rows="held")
_index("jobs_line", jobs.c.key, jobs.c.due, jobs.c.number, rows="state = 'queued'")
_index("jobs_queue", jobs.c.due, jobs.c.number, rows="state = 'queued'")
sa.Index("jobs_finished", jobs.c.finished)
# When something is due next: these are few among many that wait.
_index("jobs_delayed", jobs.c.due, rows="state = 'queued' AND delayed")
_index("jobs_waiting", jobs.c.wake, rows="state = 'queued' AND wake > 0")
_index("jobs_deadline", jobs.c.deadline, rows="state = 'queued' AND deadline IS NOT NULL")

job_steps = sa.Table(
    "job_steps",
    metadata,
    sa.Column(
        "job",
        _NUMBER,
        sa.ForeignKey("jobs.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("name", sa.Text, primary_key=True),
    # False: begun, and nobody knows whether it had its effect.
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("epoch", sa.Integer, nullable=False),
)

job_schedules = sa.Table(
    "job_schedules",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # Which service declared it, and takes it away again.
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("cron", sa.Text, nullable=False),
    sa.Column("zone", sa.Text, nullable=False),
    sa.Column("catch_up", sa.Boolean, nullable=False),
    sa.Column("next", _TIME),
    sa.Column("last", _TIME),
    sa.Column("last_job", sa.Text),
)
