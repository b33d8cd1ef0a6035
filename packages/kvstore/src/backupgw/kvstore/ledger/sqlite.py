"""The ledger of one machine's processes, in a SQLite file.

How it is exact. All sums change in transactions, and those are one after the other: one process at
a time holds the writers' lock, and one of its threads. A refusal is decided inside the transaction
that would have reserved, from sums that nobody else can change meanwhile.

How it is quick. Most transactions are no statements of SQLite. Each process has the accounts and
what is held in memory (`sqlite_memory`); a transaction works on that (`logged_books`) and appends
one record to a log beside the file (`sqlite_log`), which the others read before their next one.
When the log is full, or a step needs more than that (limits, counts, the dead), a transaction of
SQLite takes the log over and it begins anew (`sqlite_state`): the file, together with the log, is
the state, and memory can be thrown away at any time. A small item costs one short transaction, its
intend, which takes along the settle of an item before it (`turns`: a settle that only adds may
linger for some milliseconds, since what it will say is on record); a larger body costs one more for
each step. The item of every day, which is new and far from every limit and level, does not even
need books: what is left until a sum would not be calm is counted down, and name, intent and settle
are a record that is stored into the mapped log (`short_way`, `sqlite_uploads`), without handing the
interpreter's lock around. Nor does it lock anything while the process has the ledger for itself
(`tenure`), which is so whenever no other one wants it. None of them waits for the disk: log and
file are written but not synced (WAL, synchronous=NORMAL), which holds against SIGKILL, since what a
process has written the kernel has. The threads of a process share transactions; processes wait for
each other in the kernel (`locks`), where SQLite by itself would sleep and poll. There is no row for
each item: a tally for each place and scope, and a row for each write in progress.
`benchmarks/ledger.py` measures what an upload pays.

Why sums may be behind. What has been counted down for new items is in the sums before anybody looks
at them or changes them in another way: books, other scopes' items and other processes' records all
begin with `Memory.settle_up`. Until then the room that is left says the same: an intent takes from
it what it adds to the sums of what is used and reserved, and a settle does not change those. Where
an item does not fit into it, or another account had to be asked, the way is the long one, whose
books decide.

Considered and left out: a share of the room that each process leases and hands out from memory,
with a log of its own. The intent must be on record before the place changes in any case, and the
reservation rides on that, so alone it would save nothing. Among several processes it would save
reading each other's records and the writers' lock, but each item would have to make sure that no
process has died which may have brought it (a lock), limits would be a question to all processes,
and a removal would have to read what the dead had begun.

What survives what.

- SIGKILL, at any point: everything. A file lock tells that the process has died; its reservations
  are given back at the next open or at the first refusal, and its open intents are settled by
  `recover`, exactly.
- Power loss: SQLite's file stays sound, but file and log may have lost the last transactions. So
  uploads may be missing from the accounts that the place has on disk. Every session is recorded,
  durably, before its first transaction, together with the boot id of the machine; one that did not
  end, of another boot, makes `needs_reconcile` say so. After `close` nothing can be lost: the end
  of the session is written last.
- A log that was lost, or that belongs to another file (one was put back from a copy): the file
  tells by the tag that it has for its log, takes no record from there, and `needs_reconcile` says
  so.
- No room for the ledger: reserve and intend raise LedgerFull, nothing is written. What has happened
  already (settle, release, amend) is kept in memory and written with the next transaction that
  succeeds. A settle and a release say which intent is meant, and a count ends the intents that it
  meets. What is amended had none; what had been counted by then is kept with it (`told_late`).
- Fork: neither file is open during a fork, since a connection of SQLite must not cross one. The
  child starts a session of its own; what the parent holds stays the parent's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .accounts import Levels
from .held import HeldBooks
from .records import NOTHING, Alarm, Change, NewItem
from .sqlite_session import SQLiteSession
from .transacted import TransactedLedger


class SQLiteLedger(TransactedLedger[HeldBooks]):
    """A `Ledger` in the file `path`, which is made where it is missing.

    Args:
        path: on a local file system; beside it lie SQLite's log and index, the ledger's
            log and a file of locks.
        lease: seconds that a reservation stays without being renewed.
        levels: when alarms are raised.
        on_alarm: called with each alarm, once for all processes, by a thread that happens to use
            the ledger; it may use the ledger too. What it raises is logged.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        path: str,
        *,
        lease: float = 300.0,
        levels: Levels | None = None,
        on_alarm: Callable[[Alarm], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        session = SQLiteSession(path, levels or Levels(), on_alarm, clock)
        super().__init__(session, lease)
        self._sqlite = session
        self.path = path

    def __repr__(self) -> str:
        return f"SQLiteLedger({self.path!r})"

    def begin_new(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        *,
        at_once: bool = False,
        file: int = 0,
    ) -> NewItem | None:
        short_way = self._sqlite.short_way
        if short_way is None:
            return None
        return short_way.begin_new(place, name, scopes, size, missing, self.lease, at_once, file)

    def end_new(self, item: NewItem, *, settled: bool) -> None:
        short_way = self._sqlite.short_way
        if short_way is not None:
            short_way.end_new(item, settled=settled)

    def settle(self, change: Change) -> None:
        if len(change.effects) == 1:
            _, _, before, after = change.effects[0]
            short_way = self._sqlite.short_way
            if before == NOTHING and after.objects == 1 and short_way is not None:
                short_way.settle_new(change.generation)  # or it would keep others from it
                return
        super().settle(change)
