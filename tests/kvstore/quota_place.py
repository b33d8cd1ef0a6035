"""What the quota tests share: a disk place under quota, its scopes, and counting it by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.kvstore.traffic_processes import Traffic
from tests.servers.child import Child

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Amount, Ledger, SQLiteLedger
from backupgw.kvstore.names import is_reserved

LIMIT = 3 << 20
OBJECTS = 150

ROOM = 40 << 20
"""Bytes that the place of most tests may hold; traffic gets LIMIT and OBJECTS."""


def scopes(name: str) -> tuple[str, ...]:
    """`alice/main/…` counts towards the server, the user and the repository."""
    user, _, rest = name.partition("/")
    return ("server", f"user:{user}", f"repo:{user}/{rest.partition('/')[0]}")


def is_lock(name: str) -> bool:
    return "/locks/" in name


def make(folder: Path) -> None:
    """Make the place in a fresh folder."""
    PosixFS(str(folder / "store"), durability="fast").create()


def ledger_of(folder: Path) -> SQLiteLedger:
    return SQLiteLedger(str(folder / "state" / "ledger.sqlite3"))


def layer_of(folder: Path, ledger: Ledger) -> QuotaLayer:
    place = PosixFS(str(folder / "store"), durability="fast")
    return QuotaLayer(place, ledger, scopes, exempt=is_lock, total="server")


def on_disk(folder: Path) -> dict[str, Amount]:
    """Count the files by hand, as `du` would: the truth that the ledger has to match."""
    sizes: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    root = folder / "store"
    for parent, folders, files in os.walk(root):
        folders[:] = [each for each in folders if not each.startswith(".backupgw")]
        for file in files:
            path = Path(parent) / file
            name = path.relative_to(root).as_posix()
            if file.startswith(".backupgw") or is_lock(name):
                continue
            for scope in scopes(name):
                sizes[scope] += path.stat().st_size
                objects[scope] += 1
    return {scope: Amount(sizes[scope], objects[scope]) for scope in sizes}


def in_ledger(ledger: Ledger) -> dict[str, Amount]:
    """What the ledger says is used; scopes without anything are left out."""
    return {usage.scope: usage.used for usage in ledger.usages() if usage.used}


def nothing_reserved(ledger: Ledger) -> bool:
    return not any(usage.reserved for usage in ledger.usages())


def names(folder: Path) -> Iterator[str]:
    """Yield what is there, in order; what the killed were writing has no name yet."""
    root = folder / "store"
    for path in sorted(root.rglob("*")):
        if path.is_file() and not is_reserved(path.name):
            yield path.relative_to(root).as_posix()


def kill_after(process: Child[bytes] | Traffic, operations: int) -> None:
    """Kill it in the middle of whatever it does after so many operations."""
    assert process.stdout is not None
    for _ in range(operations):
        if not process.stdout.readline():
            break
    process.kill()
    process.wait()
