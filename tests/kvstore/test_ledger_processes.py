"""Many processes against one limit, some of them killed: never passed, and exact afterwards.

A few rounds each; with BACKUPGW_SOAK=1 as many as a release has to stand.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.kvstore import quota_place
from tests.kvstore.quota_place import LIMIT, OBJECTS, kill_after
from tests.servers.child import Child

from backupgw.kvstore.ledger import Limit, SQLiteLedger
from backupgw.kvstore.ledger.sqlite_log import SIZE

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
ROUNDS, KILLS = (25, 100) if SOAK else (3, 12)
"""Of each part."""

ROUNDS_PARTS = [pytest.param(part, id=f"part{part}") for part in range(8 if SOAK else 1)]
KILLS_PARTS = [pytest.param(part, id=f"part{part}") for part in range(10 if SOAK else 1)]
"""200 rounds and 1,000 kills in all, in parts that can be had by themselves."""


@contextmanager
def running(
    folder: Path, seed: int, threads: int, operations: int, log: int
) -> Iterator[Child[bytes]]:
    arguments = [str(folder), str(seed), str(threads), str(operations), str(log)]
    with Child(
        [sys.executable, "-m", "tests.kvstore.quota_traffic", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quota_place.make(tmp_path)
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=LIMIT, hard_objects=OBJECTS))
        with quota_place.layer_of(tmp_path, ledger):
            pass  # counted once, so that nothing but the ledger's own care keeps it right
    return tmp_path


def log_of(number: int) -> int:
    """Every other round has a log so short that most kills meet SQLite's own transactions."""
    return 4096 if number % 2 else SIZE


def compare(folder: Path) -> None:
    """After a restart, without counting, the ledger is the place to the byte."""
    with quota_place.ledger_of(folder) as ledger:
        assert not ledger.needs_reconcile("")
        with quota_place.layer_of(folder, ledger) as place:
            found = quota_place.on_disk(folder)
            assert quota_place.in_ledger(ledger) == found
            assert quota_place.nothing_reserved(ledger)
            assert found["server"].bytes <= LIMIT
            assert found["server"].objects <= OBJECTS
            assert place.reconcile().corrections == []


def make_room(folder: Path, random_: random.Random) -> None:
    """Delete most of what is there, so that the next round runs into the limit anew."""
    with quota_place.ledger_of(folder) as ledger, quota_place.layer_of(folder, ledger) as place:
        for name in quota_place.names(folder):
            if random_.random() < 0.7:
                place.delete(name)


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("part", ROUNDS_PARTS)
def test_four_processes_of_sixteen_threads_never_pass_the_limit(folder: Path, part: int) -> None:
    random_ = random.Random(20 + part)
    outcomes = []
    for number in range(part * ROUNDS, (part + 1) * ROUNDS):
        with ExitStack() as stack:
            processes = [
                stack.enter_context(running(folder, number * 10 + each, 16, 12, log_of(number)))
                for each in range(4)
            ]
            kill_after(processes.pop(), random_.randrange(16 * 12))
            for process in processes:
                output, _ = process.communicate(timeout=240)
                assert process.returncode == 0
                outcomes += output.split(b"\n")
        compare(folder)
        make_room(folder, random_)
    assert outcomes.count(b"refused") > 10, "the limit was never reached: this shows nothing"
    assert outcomes.count(b"done") > 10


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("part", KILLS_PARTS)
def test_a_kill_at_any_point_leaves_nothing_that_recover_does_not_settle(
    folder: Path, part: int
) -> None:
    random_ = random.Random(7 + part)
    for number in range(part * KILLS, (part + 1) * KILLS):
        with running(folder, number, 6, 100_000, log_of(number)) as process:
            kill_after(process, random_.randrange(1, 120))
        compare(folder)
        if number % 10 == 9:
            make_room(folder, random_)


def test_without_recover_the_drift_is_what_the_dead_have_on_record(folder: Path) -> None:
    with running(folder, 3, 6, 100_000, SIZE) as process:
        kill_after(process, 60)
    ledger = SQLiteLedger(str(folder / "state" / "ledger.sqlite3"))
    with ledger:
        usage = ledger.usage("server")
        found = quota_place.on_disk(folder)["server"]
        assert found.bytes <= usage.used.bytes + usage.reserved.bytes <= LIMIT
