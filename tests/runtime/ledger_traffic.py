"""A gateway's process on a ledger in PostgreSQL, for tests that kill it or the database.

    python -m tests.runtime.ledger_traffic URL HOST LEASE FOLDER SEED THREADS OPERATIONS

As `tests.kvstore.quota_traffic`: a line for each operation that came to an end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from backupgw.runtime.database import open_database
from backupgw.runtime.ledger import PostgresLedger
from tests.kvstore import quota_place, quota_traffic


def serve(url: str, host: str, lease: float, folder: Path, *numbers: int) -> int:
    with (
        open_database(url) as database,
        PostgresLedger(database, session_lease=lease, host=host) as ledger,
        quota_place.layer_of(folder, ledger) as place,
    ):
        return quota_traffic.play(place, ledger, *numbers)


def main(arguments: Sequence[str]) -> int:
    """Be that process; returns its exit code."""
    url, host, lease, folder, *numbers = arguments
    return serve(url, host, float(lease), Path(folder), *map(int, numbers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
