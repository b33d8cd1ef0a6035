"""Bearer tokens, the single-use ids of signed ones, and a number that says when either changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, Table, Text

from . import metadata

# Times are seconds since 1970.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("actions", Integer, nullable=False),
    Column("targets", Text, nullable=False, comment="JSON: a list of patterns"),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("used", Double),
)

spent_tokens = Table(
    "spent_tokens",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("until", Double, nullable=False),
    Index("spent_tokens_until", "until"),
)

token_changes = Table(
    "token_changes",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False, comment="1: there is one row"),
    Column("number", BigInteger, nullable=False),
    info={"exported": False},
)
