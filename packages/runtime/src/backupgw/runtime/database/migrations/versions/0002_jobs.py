"""Jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("delayed", sa.Boolean, nullable=False),
        sa.Column("wake", sa.Double, nullable=False),
        sa.Column("deadline", sa.Double),
        sa.Column("started", sa.Double),
        sa.Column("finished", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("runner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("lease_clock", sa.Text),
        sa.Column("progress", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("schedule", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("jobs_state_check"),
        ),
        sa.PrimaryKeyConstraint("number", name="jobs_pkey"),
        sa.UniqueConstraint("id", name="jobs_id_key"),
        sqlite_autoincrement=True,
    )
    _index("jobs_one_of_a_key", ["key"], "held", unique=True)
    _index("jobs_held", ["lease_until"], "held")
    _index("jobs_line", ["key", "due", "number"], "state = 'queued'")
    _index("jobs_queue", ["due", "number"], "state = 'queued'")
    op.create_index("jobs_finished", "jobs", ["finished"])
    _index("jobs_delayed", ["due"], "state = 'queued' AND delayed")
    _index("jobs_waiting", ["wake"], "state = 'queued' AND wake > 0")
    _index("jobs_deadline", ["deadline"], "state = 'queued' AND deadline IS NOT NULL")
    op.create_table(
        "job_steps",
        sa.Column("job", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("job", "name", name="job_steps_pkey"),
        sa.ForeignKeyConstraint(
            ["job"], ["jobs.number"], name="job_steps_job_fkey", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "job_schedules",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("cron", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("catch_up", sa.Boolean, nullable=False),
        sa.Column("next", sa.Double),
        sa.Column("last", sa.Double),
        sa.Column("last_job", sa.Text),
        sa.PrimaryKeyConstraint("name", name="job_schedules_pkey"),
    )


def _index(name: str, columns: list[str], rows: str, *, unique: bool = False) -> None:
    # Written as SQLAlchemy writes a condition: SQLite uses an index of some rows for no other.
    sqlite = rows.replace("held", "held = 1").replace("delayed", "delayed = 1")
    op.create_index(
        name,
        "jobs",
        columns,
        unique=unique,
        sqlite_where=sa.text(sqlite),
        postgresql_where=sa.text(rows),
    )
