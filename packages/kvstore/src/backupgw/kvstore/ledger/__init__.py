"""What processes must agree on: how many bytes and objects each scope uses, and how many it may.

A scope is a string that the services choose ("server", "user:alice", "repo:alice/main"); an item
counts towards several at once. `Ledger` is the protocol, `SQLiteLedger` its implementation for the
processes of one machine, `layers.quota` the layer that keeps it for any backend.

The account of a scope has two columns. *Used* is what items in the place occupy; *reserved* is
what writers that have not finished may still add. A hard limit bounds the sum of both at every
moment, whatever the concurrency, because both change only in the ledger's transactions:

    reserve, grow      a body arrives: reserved rises in steps, or the write is refused
    intend             just before the place changes: which names, from what to what
    settle, free       the place has changed: reserved becomes used, or used falls
    release            it did not happen: reserved falls

Whoever dies in between leaves a reservation, which its lease or the end of its process gives back,
or an intent, which `recover` settles by looking at what the name holds now. `reconcile` counts a
place anew, while it is in use, and reports what it corrected.
"""

from .base import Ledger
from .errors import LedgerError, LedgerFull, LimitExceeded, NameBusy, NameLost, ReservationEnded
from .records import (
    NOTHING,
    Alarm,
    Amount,
    Change,
    Correction,
    Effect,
    Item,
    Limit,
    Measure,
    NewItem,
    Repair,
    Report,
    Reservation,
    Usage,
)
from .sqlite import SQLiteLedger

__all__ = [
    "NOTHING",
    "Alarm",
    "Amount",
    "Change",
    "Correction",
    "Effect",
    "Item",
    "Ledger",
    "LedgerError",
    "LedgerFull",
    "Limit",
    "LimitExceeded",
    "Measure",
    "NameBusy",
    "NameLost",
    "NewItem",
    "Repair",
    "Report",
    "Reservation",
    "ReservationEnded",
    "SQLiteLedger",
    "Usage",
]
