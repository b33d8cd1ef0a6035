"""`--max-size`: a limit for all repositories together, exact among workers.

The accounts lie in a ledger beside the repositories, under a name that no client can reach, unless
the settings name another file (a ledger belongs on a local disk). As with rest-server, the place is
counted at each start, since another server may have written there in between; from then on every
upload reserves its bytes as they arrive. Locks always pass: without them nothing could be pruned.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Limit, SQLiteLedger

SCOPE = "server"
_FOLDER = ".backupgw-ledger"


def ledger_path(place: Path | None, named: Path | None) -> Path:
    """Return where the ledger lies, its folder made if it is our own.

    Args:
        place: the folder of the repositories, None where they are not on this machine's disks.
        named: what the settings say.

    Raises:
        ValueError: neither is given.
        OSError: the folder cannot be made.
    """
    if named is not None:
        return named
    if place is None:
        raise ValueError("a limit for this place needs a file for its accounts on a local disk")
    folder = place / _FOLDER
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder / "ledger.sqlite3"


def limited(backend: Backend, path: Path) -> QuotaLayer:
    """Return `backend` with the limit in front of it; neither it nor its ledger is open yet."""
    return QuotaLayer(
        backend,
        SQLiteLedger(str(path)),
        scopes=lambda _name: (SCOPE,),
        exempt=is_lock,
        total=SCOPE,
    )


def begin(layer: QuotaLayer, max_size: int) -> None:
    """Set the limit in bytes and count the place. Raises BackendError."""
    ledger = layer.ledger
    ledger.open()
    with closing(ledger):
        ledger.set_limit(SCOPE, Limit(hard_bytes=max_size))
        with layer:
            layer.reconcile()


def is_lock(name: str) -> bool:
    """Whether the item `name` of the place is a repository's lock."""
    segments = name.split("/")
    return len(segments) >= 2 and segments[-2] == "locks"
