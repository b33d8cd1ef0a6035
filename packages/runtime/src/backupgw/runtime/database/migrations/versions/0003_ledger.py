"""Ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, where gateways share a database."""
    if op.get_bind().dialect.name != "postgresql":
        return
    _accounts()
    _holders()
    _counts()


def _accounts() -> None:
    op.create_table(
        "ledger_scopes",
        sa.Column("scope", sa.Text(collation="C"), nullable=False),
        _count("hard_bytes", nullable=True),
        _count("hard_objects", nullable=True),
        _count("soft_bytes", nullable=True),
        _count("soft_objects", nullable=True),
        _count("used_bytes"),
        _count("used_objects"),
        _count("reserved_bytes"),
        _count("reserved_objects"),
        sa.Column("raised", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="ledger_scopes_pkey"),
    )
    op.create_table(
        "ledger_tallies",
        sa.Column("place", sa.Text(collation="C"), nullable=False),
        sa.Column("scope", sa.Text(collation="C"), nullable=False),
        _count("bytes"),
        _count("objects"),
        _count("counted_bytes"),
        _count("counted_objects"),
        sa.PrimaryKeyConstraint("place", "scope", name="ledger_tallies_pkey"),
    )
    op.create_table(
        "ledger_held",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("session", sa.BigInteger),
        sa.Column("deadline", sa.Double, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("holds", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("name", sa.Text(collation="C")),
        sa.Column("scopes", sa.Text),
        sa.Column("siblings", sa.Text),
        _count("before_bytes"),
        _count("before_objects"),
        _count("after_bytes"),
        _count("after_objects"),
        sa.PrimaryKeyConstraint("number", name="ledger_held_pkey"),
    )
    named = sa.text("name IS NOT NULL")
    op.create_index("ledger_held_key", "ledger_held", ["key"], postgresql_where=named)


def _holders() -> None:
    op.create_table(
        "ledger_sessions",
        sa.Column("id", sa.BigInteger, autoincrement=True, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("process", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.Double, nullable=False),
        sa.Column("deadline", sa.Double, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("dead", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="ledger_sessions_pkey"),
    )
    op.create_table(
        "ledger_claims",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("holder", sa.BigInteger, nullable=False),
        sa.Column("session", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("waited", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("key", name="ledger_claims_pkey"),
    )
    op.create_index("ledger_claims_holder", "ledger_claims", ["holder"])
    op.create_table(
        "ledger_doubts",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        _count("bytes"),
        _count("objects"),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("number", name="ledger_doubts_pkey"),
    )


def _counts() -> None:
    op.create_table(
        "ledger_places",
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("stale", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("place", name="ledger_places_pkey"),
    )
    op.create_table(
        "ledger_uncounted",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="ledger_uncounted_pkey"),
    )
    op.create_table(
        "ledger_origin",
        sa.Column("origin", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("origin", name="ledger_origin_pkey"),
    )


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)
