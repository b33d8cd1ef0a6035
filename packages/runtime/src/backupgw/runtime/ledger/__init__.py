"""The ledger that several gateways share, in PostgreSQL; `backupgw.kvstore.ledger` says what a
ledger is, and has the one for a machine alone."""

from __future__ import annotations

from .postgres import PostgresLedger

__all__ = ["PostgresLedger"]
