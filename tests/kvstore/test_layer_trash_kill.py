"""SIGKILL at any point of upload, delete, overwrite, move, restore and expiry.

Thirty points on a disk, six on each of two places that can do less; with BACKUPGW_SOAK=1 a
thousand and two hundred.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from tests.kvstore import quota_place, trash_traffic
from tests.kvstore.trash_traffic import HEAD, Journal, Maker

from backupgw.kvstore.layers.trash_contents import Trash
from backupgw.kvstore.layers.trash_names import ROOT, read_path
from backupgw.kvstore.ledger import Amount, Limit

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
LIMIT = 64 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quota_place.make(tmp_path)
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=LIMIT))
        with trash_traffic.place_of(tmp_path, ledger, trash_traffic.disk):
            pass  # counted once: from now on nothing but the ledger's own care keeps it right
    return tmp_path


def kill_after(folder: Path, make: Maker, seed: int, lines: int) -> list[bytes]:
    """Run the traffic, kill it after so many lines, and return all that it wrote."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        trash_traffic.run(folder, make, seed, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as journal:
        found = list(islice(journal, lines))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        found += journal.readlines()
    return [line.rstrip(b"\n") for line in found if line.endswith(b"\n")]


def on_disk(folder: Path) -> tuple[dict[str, Amount], set[str], dict[str, str]]:
    """Count all files by hand, the trash's too; return amounts, values and values by name."""
    sizes: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    present, named = set(), {}
    root = folder / "store"
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or path.name.startswith(".backupgw-tmp") or name == f"{ROOT}/clock":
            continue
        value = path.read_bytes()[:HEAD].decode()
        present.add(value)
        if name.startswith(".backupgw"):
            kept = read_path(name)
            assert kept is not None, name
            name = kept.name
        else:
            named[name] = value
        if quota_place.is_lock(name):
            continue
        for scope in quota_place.scopes(name):
            sizes[scope] += path.stat().st_size
            objects[scope] += 1
    return {scope: Amount(sizes[scope], objects[scope]) for scope in sizes}, present, named


@pytest.mark.parametrize(
    ("make", "rounds", "soak"),
    [
        (trash_traffic.disk, 30, 1000),
        (trash_traffic.moving, 6, 200),
        (trash_traffic.copying, 6, 200),
    ],
    ids=["disk", "moving", "copying"],
)
@pytest.mark.timeout(7200 if SOAK else 300)
def test_a_kill_at_any_point_loses_nothing_and_leaves_the_accounts_exact(
    folder: Path, make: Maker, rounds: int, soak: int
) -> None:
    random_ = random.Random(11)
    journal = Journal()
    for number in range(soak if SOAK else rounds):
        journal.read(kill_after(folder, make, number, random_.randrange(2, 400)))
        assert journal.failures == []
        held, present, named = on_disk(folder)
        with quota_place.ledger_of(folder) as ledger:
            # Without looking at anything but the ledger: no more than what the dead had announced.
            usage = ledger.usage("server")
            used = usage.used.bytes + usage.reserved.bytes
            assert held["server"].bytes <= used <= LIMIT
            assert not ledger.needs_reconcile("")
            with trash_traffic.place_of(folder, ledger, make) as place:
                assert quota_place.in_ledger(ledger) == held
                assert quota_place.nothing_reserved(ledger)
                if number % 10 == 9:
                    assert place.reconcile().corrections == []
        assert journal.lost(present, trash_traffic.clock()) == []
        wrong = {n: v for n, v in journal.certain.items() if named.get(n) != v}
        assert wrong == {}
    with (
        quota_place.ledger_of(folder) as ledger,
        trash_traffic.place_of(folder, ledger, make) as place,
    ):
        trash = Trash(place)
        assert sum(1 for _ in trash.entries()) > 10, "the trash was never used: this shows nothing"
        gone = [v for v, known in journal.values.items() if known.acknowledged]
        if make is trash_traffic.disk:
            assert len(set(gone) - present) > 10, (
                "nothing ever expired: this shows less than it says"
            )
        trash.empty(force=True)
        for name in named:
            place.delete(name)
        trash.empty(force=True)
        assert quota_place.in_ledger(ledger) == {}, "emptied, and something still counts"
