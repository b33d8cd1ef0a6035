"""The database's clock as an SQL expression: the one that all gateways agree on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

SQLITE_FUNCTION = "backupgw_clock"
"""Made by us on every connection: SQLite before 3.42 has no clock finer than milliseconds."""


class clock(FunctionElement[float]):  # noqa: N801 - reads as the function it is in SQL
    """Seconds since 1970, as a double: of PostgreSQL's machine, or of the one SQLite runs on.

    It is the time of the call, not of the transaction's beginning: a transaction that waited for a
    lock must not count with the time before it.
    """

    type = Double()
    inherit_cache = True
    name = "clock"


@compiles(clock, "postgresql")
def _on_postgresql(element: clock, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "extract(epoch FROM clock_timestamp())::double precision"


@compiles(clock, "sqlite")
def _on_sqlite(element: clock, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return f"{SQLITE_FUNCTION}()"
