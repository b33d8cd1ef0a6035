"""Ledger: what changes while a folder is counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table and the column, where gateways share a database."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.add_column("ledger_uncounted", sa.Column("lister", sa.BigInteger))
    op.create_table(
        "ledger_noted",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("beneath", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("key", name="ledger_noted_pkey"),
    )
