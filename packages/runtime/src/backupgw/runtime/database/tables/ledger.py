"""The ledger that gateways share: accounts, reservations and intents, and who may change what.

On PostgreSQL only: a gateway alone keeps its ledger in a file of its own. Numbers of bytes and
objects are BIGINT, times are seconds since 1970. A `key` is a digest of what it stands for: a path
may be longer than an index of PostgreSQL takes.
"""

from __future__ import annotations

import sqlalchemy as sa

from . import metadata

_ONLY = {"only": "postgresql"}
_NAMED = sa.text("name IS NOT NULL")


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


scopes = sa.Table(
    "ledger_scopes",
    metadata,
    sa.Column("scope", sa.Text(collation="C"), primary_key=True),
    _count("hard_bytes", nullable=True),
    _count("hard_objects", nullable=True),
    _count("soft_bytes", nullable=True),
    _count("soft_objects", nullable=True),
    _count("used_bytes"),
    _count("used_objects"),
    _count("reserved_bytes"),
    _count("reserved_objects"),
    sa.Column("raised", sa.Text, nullable=False),
    info=_ONLY,
)

# What a place contributes to what a scope uses; `counted` is what a count in progress found.
tallies = sa.Table(
    "ledger_tallies",
    metadata,
    sa.Column("place", sa.Text(collation="C"), primary_key=True),
    sa.Column("scope", sa.Text(collation="C"), primary_key=True),
    _count("bytes"),
    _count("objects"),
    _count("counted_bytes"),
    _count("counted_objects"),
    info=_ONLY,
)

# Reservations (name is null) and intents. Session 0 is a process that died, null is nobody's.
held = sa.Table(
    "ledger_held",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
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
    info=_ONLY,
)
sa.Index("ledger_held_key", held.c.key, postgresql_where=_NAMED)

# A session is one start of one process. `batch` counts its transactions.
sessions = sa.Table(
    "ledger_sessions",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("process", sa.BigInteger, nullable=False),
    sa.Column("lease", sa.Double, nullable=False),
    sa.Column("deadline", sa.Double, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("dead", sa.Boolean, nullable=False),
    info=_ONLY,
)

# Names that somebody is changing, folders and places that somebody is counting.
claims = sa.Table(
    "ledger_claims",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("holder", sa.BigInteger, nullable=False),
    sa.Column("session", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    # Somebody else wants it, and is to be told when it is free.
    sa.Column("waited", sa.Boolean, nullable=False),
    info=_ONLY,
)
sa.Index("ledger_claims_holder", claims.c.holder)

# Names whose intent was ended for a session that may yet turn out to be alive.
doubts = sa.Table(
    "ledger_doubts",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    # What the name counts with.
    _count("bytes"),
    _count("objects"),
    sa.Column("late", sa.Boolean, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    info=_ONLY,
)

places = sa.Table(
    "ledger_places",
    metadata,
    sa.Column("place", sa.Text, primary_key=True),
    sa.Column("stale", sa.Boolean, nullable=False),
    info=_ONLY,
)

# Folders that a count in progress has still to list; `lister` is the session that lists one.
uncounted = sa.Table(
    "ledger_uncounted",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("lister", sa.BigInteger),
    info=_ONLY,
)

# Names that changed, or were about to, beneath the folder of a place that is listed just now: those
# directly in it, and folders beneath which something changed.
noted = sa.Table(
    "ledger_noted",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("beneath", sa.Boolean, nullable=False),
    info=_ONLY,
)

# Which database this is: another one has not got all that the places have.
origin = sa.Table(
    "ledger_origin",
    metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    info=_ONLY,
)
