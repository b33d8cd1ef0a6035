"""The ledger of several gateways' processes, in PostgreSQL.

How it is exact. All sums change in write transactions, and those are one after the other, by an
advisory lock that each holds for two round trips. A refusal is decided inside the transaction that
would have reserved. The arithmetic is the kernel's, the same as in a gateway alone.

How it is quick. The threads of a process share transactions (`turns`), so that the lock, the round
trips and PostgreSQL's disk are paid once for all who wait. Only what must not be lost waits for the
disk: an intent, a limit, a count. A reservation or a settle that a crash of PostgreSQL took away is
made again, or found by `recover`, since its intent is on disk. `benchmarks/ledger.py` measures it.

Who is alive. A session is one start of one process of one host. It has a lease by PostgreSQL's
clock, renewed by each transaction and by a heartbeat, and nothing else counts: not its process id,
which means nothing elsewhere, and not its connections, which break while a process lives. A lease
that runs out gives back what the session has reserved, at once; its names are free for others
(`claims`), and its open intents are settled by what is there. Leases begin anew when PostgreSQL
starts, since nobody could renew them before. `close` ends a session at once.

What survives what.

- SIGKILL of a gateway, at any point: everything, once its lease is over.
- A lost connection: all, if it is back within the lease. A COMMIT that was not answered is asked
  after: each session counts its transactions on record, so each happens once.
- PostgreSQL away: reserve, grow, intend and changing raise LedgerError, retryable. Settle, release
  and amend are remembered and written when it is back. A removal that has its name by then is
  carried out; one that has not is refused, since nobody could say that no other host does the same.
- A crash of PostgreSQL: everything that an intent stood for.
- Another database under the same name (a standby that took over, a copy put back): it may lack what
  the places have, so `needs_reconcile` says so for all of them.
- Fork: the child starts a session of its own; what the parent holds stays the parent's.

A connection pooler in between must keep a session to a connection: LISTEN is used.
"""

from __future__ import annotations

from collections.abc import Callable

from backupgw.kvstore.ledger import Alarm
from backupgw.kvstore.ledger.accounts import Levels
from backupgw.kvstore.ledger.transacted import TransactedLedger

from ..database import Database
from .counting import PostgresBooks
from .session import PostgresSession


class PostgresLedger(TransactedLedger[PostgresBooks]):
    """A `Ledger` in a PostgreSQL database that gateways share.

    Args:
        database: from `open_database`; closed by whoever opened it, after the ledger. The ledger
            has three connections of its own in each process.
        lease: seconds that a reservation stays without being renewed.
        session_lease: seconds after which a process that is not heard of is taken for dead.
        host: for operators; the machine's name by default.
        levels: when alarms are raised.
        on_alarm: called with each alarm, once for all gateways, by a thread that happens to use
            the ledger; it may use the ledger too. What it raises is logged.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease: float = 300.0,
        session_lease: float = 30.0,
        host: str | None = None,
        levels: Levels | None = None,
        on_alarm: Callable[[Alarm], None] | None = None,
    ) -> None:
        if database.dialect != "postgresql":
            raise ValueError("only PostgreSQL is shared by gateways")
        session = PostgresSession(
            database,
            lease=session_lease,
            host=host,
            levels=levels or Levels(),
            on_alarm=on_alarm,
        )
        super().__init__(session, lease)
        self._own = session

    def __repr__(self) -> str:
        return f"PostgresLedger({self._own.database!r})"
