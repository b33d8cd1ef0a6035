"""The clocks that jobs go by.

When a job is due is told by the database's wall clock. Leases must not end, nor last, because
somebody sets a clock: PostgreSQL's own counts for all gateways; where the database is a SQLite
file, all processes are on one machine, whose time since it was started they share and nobody can
set. A lease names the clock it was written by; one that was written by another clock (before a
restart of the machine, or in another database) has ended.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import sqlalchemy as sa

from ..database.clock import clock

IDLE = 5.0
"""Seconds that a transaction of jobs may do nothing in PostgreSQL."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Now:
    """One moment.

    Attributes:
        wall: seconds since the epoch.
        lease: seconds of the clock that leases go by.
        clock: which one that is.
    """

    wall: float
    lease: float
    clock: str


def now(connection: sa.Connection) -> Now:
    """Return the moment by the database's clocks."""
    if connection.dialect.name == "postgresql":
        wall = float(connection.execute(sa.select(clock(), not_frozen())).one()[0])
        return Now(wall, wall, "database")
    return Now(time.time(), elapsed(), _boot())


def not_frozen() -> sa.ColumnElement[str]:
    """Return what lets PostgreSQL end this transaction when its process does nothing for a while.

    A process that is frozen or cut off in the middle would keep all others from its rows and locks.
    """
    limit = f"{IDLE * 1000:.0f}"
    return sa.func.set_config("idle_in_transaction_session_timeout", limit, True)


def elapsed() -> float:
    """Return seconds of a clock that nobody can set and that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


# Linux alone has it; elsewhere a machine that slept is noticed by the database's answer only.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@functools.cache
def _boot() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "monotonic"
