"""Tokens."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("actions", sa.Integer, nullable=False),
        sa.Column("targets", sa.Text, nullable=False, comment="JSON: a list of patterns"),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("revoked", sa.Double),
        sa.Column("used", sa.Double),
        sa.PrimaryKeyConstraint("id", name="tokens_pkey"),
    )
    op.create_table(
        "spent_tokens",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "id", name="spent_tokens_pkey"),
    )
    op.create_index("spent_tokens_until", "spent_tokens", ["until"])
    changes = op.create_table(
        "token_changes",
        sa.Column(
            "only",
            sa.Integer,
            nullable=False,
            autoincrement=False,
            comment="1: there is one row",
        ),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("only", name="token_changes_pkey"),
    )
    # It only grows, also where a database was lost and is made anew.
    op.bulk_insert(changes, [{"only": 1, "number": int(time.time()) * 1000}])
