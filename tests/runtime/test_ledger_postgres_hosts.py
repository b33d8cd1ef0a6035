"""Processes of two hosts against one limit, some of them killed: never passed, exact afterwards.

A few rounds each; with BACKUPGW_SOAK=1 as many as a release has to stand.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from backupgw.kvstore.ledger import Amount, Limit
from tests.kvstore import quota_place
from tests.kvstore.quota_place import LIMIT, OBJECTS
from tests.kvstore.traffic_processes import Traffic, forerunner
from tests.runtime.ledger_place import Ledgers

pytestmark = pytest.mark.alone

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
ROUNDS, KILLS, STALLS = (10, 30, 10) if SOAK else (2, 1, 1)
"""Of each part."""

ROUNDS_PARTS = [pytest.param(part, id=f"part{part}") for part in range(20 if SOAK else 1)]
KILLS_PARTS = [pytest.param(part, id=f"part{part}") for part in range(10 if SOAK else 1)]
STALLS_PARTS = [pytest.param(part, id=f"part{part}") for part in range(5 if SOAK else 1)]
"""200 rounds, 300 kills and 50 stalls in all, in parts that can be had by themselves."""

LEASE = 3.0
"""Seconds: the dead are buried while the others still work."""


def running(
    url: str, folder: Path, *, host: str, seed: int, threads: int = 16, operations: int = 6
) -> AbstractContextManager[Traffic]:
    arguments = [url, host, str(LEASE), str(folder), str(seed), str(threads), str(operations)]
    return forerunner("tests.runtime.ledger_traffic").running(arguments)


@pytest.fixture
def folder(tmp_path: Path, ledgers: Ledgers) -> Path:
    quota_place.make(tmp_path)
    with ledgers() as ledger:
        ledger.set_limit("server", Limit(hard_bytes=LIMIT, hard_objects=OBJECTS))
        with quota_place.layer_of(tmp_path, ledger):
            pass  # counted once, so that nothing but the ledger's own care keeps it right
    return tmp_path


def compare(ledgers: Ledgers, folder: Path) -> None:
    """Once the leases of the dead are over, the ledger is the place to the byte, uncounted."""
    ledgers.execute("UPDATE ledger_sessions SET deadline = 0, lease = -1e10")
    with ledgers.briefly() as ledger:
        assert not ledger.needs_reconcile("")
        with quota_place.layer_of(folder, ledger) as place:
            found = quota_place.on_disk(folder)
            assert quota_place.in_ledger(ledger) == found
            assert quota_place.nothing_reserved(ledger)
            limit = ledger.usage("server").limit
            assert found["server"].bytes <= (limit.hard_bytes or found["server"].bytes)
            assert found["server"].objects <= (limit.hard_objects or found["server"].objects)
            assert place.reconcile().corrections == []
    assert ledgers.execute("SELECT * FROM ledger_held") == []
    assert ledgers.execute("SELECT * FROM ledger_claims") == []


def wait_for(ledgers: Ledgers, condition: str) -> None:
    """Return when a query finds something."""
    patience = threading.Event()
    for _ in range(3000):
        if ledgers.execute(condition):
            return
        patience.wait(0.02)
    raise AssertionError(f"never: {condition}")


def make_room(ledgers: Ledgers, folder: Path, random_: random.Random) -> None:
    """Delete most of what is there, so that the next round runs into the limit anew."""
    with ledgers.briefly() as ledger, quota_place.layer_of(folder, ledger) as place:
        for name in quota_place.names(folder):
            if random_.random() < 0.7:
                place.delete(name)


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("part", ROUNDS_PARTS)
def test_four_processes_of_sixteen_threads_never_pass_the_limit(
    folder: Path, ledgers: Ledgers, part: int
) -> None:
    random_ = random.Random(20 + part)
    outcomes: list[bytes] = []
    for number in range(part * ROUNDS, (part + 1) * ROUNDS):
        hosts = ("one", "one") if number % 2 else ("one", "two")
        with ExitStack() as stack:
            processes = [
                stack.enter_context(
                    running(ledgers.url(), folder, host=hosts[each % 2], seed=number * 10 + each)
                )
                for each in range(4)
            ]
            quota_place.kill_after(processes.pop(random_.randrange(4)), random_.randrange(16 * 6))
            for process in processes:
                output = process.communicate()
                assert process.returncode == 0
                outcomes += output.split(b"\n")
        compare(ledgers, folder)
        make_room(ledgers, folder, random_)
    assert outcomes.count(b"refused") > 10, "the limit was never reached: this shows nothing"
    assert outcomes.count(b"done") > 10
    assert b"away" not in outcomes


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("part", KILLS_PARTS)
def test_a_kill_at_any_point_leaves_nothing_that_recover_does_not_settle(
    folder: Path, ledgers: Ledgers, part: int
) -> None:
    random_ = random.Random(7 + part)
    for number in range(part * KILLS, (part + 1) * KILLS):
        with running(
            ledgers.url(), folder, host="one", seed=number, threads=6, operations=100_000
        ) as process:
            quota_place.kill_after(process, random_.randrange(1, 120))
        compare(ledgers, folder)
        if number % 10 == 9:
            make_room(ledgers, folder, random_)


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("part", STALLS_PARTS)
def test_a_host_that_stalls_beyond_its_lease_and_wakes_up_is_counted_right(
    folder: Path, ledgers: Ledgers, part: int
) -> None:
    # It may have had a change under way that nobody could keep it from: no limit here.
    with ledgers() as ledger:
        ledger.set_limit("server", Limit())
    random_ = random.Random(11 + part)
    for number in range(part * STALLS, (part + 1) * STALLS):
        with (
            running(ledgers.url(), folder, host="one", seed=number, threads=8) as one,
            running(ledgers.url(), folder, host="two", seed=number + 500, threads=8) as two,
        ):
            for _ in range(random_.randrange(4, 30)):
                one.stdout.readline()
            one.send_signal(signal.SIGSTOP)
            stalled = f"SELECT 1 FROM ledger_sessions WHERE process = {one.pid} AND dead"
            while two.stdout.readline():
                continue  # it comes to its end, whatever the other one has
            with ledgers() as other:
                other.reserve("", ("server",), Amount(1, 0))
                wait_for(
                    ledgers,
                    f"SELECT 1 FROM ledger_sessions WHERE process = {one.pid} AND"
                    " deadline < extract(epoch FROM clock_timestamp())",
                )
                other.usage("server")
            assert ledgers.execute(stalled)
            one.send_signal(signal.SIGCONT)
            one.communicate()
            assert one.returncode == 0
            assert two.wait() == 0
        compare(ledgers, folder)


def test_counting_anew_while_two_hosts_work_corrects_nothing(
    folder: Path, ledgers: Ledgers
) -> None:
    with (
        running(ledgers.url(), folder, host="one", seed=1, threads=8, operations=16) as one,
        running(ledgers.url(), folder, host="two", seed=2, threads=8, operations=16) as two,
        ledgers() as ledger,
        quota_place.layer_of(folder, ledger) as place,
    ):
        for _ in range(5):
            assert place.reconcile().corrections == []
        for process in (one, two):
            process.communicate()
            assert process.returncode == 0
    compare(ledgers, folder)
