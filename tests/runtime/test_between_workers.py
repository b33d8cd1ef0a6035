"""What the workers of one gateway know of each other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupgw.runtime.auth import Throttle, Throttled
from backupgw.runtime.auth.throttle import PAIR
from backupgw.runtime.between_workers import (
    SHARED_VARIABLE,
    SharedLock,
    SharedTable,
    Tally,
    worker_ended,
)
from tests.servers.child import Child


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SHARED_VARIABLE, str(tmp_path))
    return tmp_path


@contextmanager
def process(code: str) -> Iterator[Child[str]]:
    """Another process that runs `code`, has said "ready" and waits for its standard input's end."""
    lines = f"from backupgw.runtime.between_workers import *\n{code}\nprint('ready', flush=True)\n"
    with Child(
        [sys.executable, "-c", f"{lines}input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.kill()


def test_a_tally_adds_up_over_processes_and_forgets_those_that_ended(shared: Path) -> None:
    mine = Tally("test")
    assert mine.add("ann", 2) == 2
    assert mine.add("bob", 1) == 1
    with process("t = Tally('test')\nt.add('ann', 3)\nt.add('eve', 1)\nt.add('eve', -1)") as other:
        assert [mine.total(key) for key in ("ann", "bob", "eve", "dan")] == [5, 1, 0, 0]
        mine.add("ann", -1)
        assert mine.total("ann") == 4
    worker_ended(str(shared), other.pid)
    assert mine.total("ann") == 1
    mine.close()
    assert list(shared.iterdir()) == []


def test_a_tally_of_many_keys_is_exact_for_each(shared: Path) -> None:
    count = Tally.SLOTS // 4
    code = f"t = Tally('test')\nfor n in range({count}): t.add(f'key {{n}}', n % 7)"
    mine = Tally("test")
    with process(code):
        for number in range(count):
            mine.add(f"key {number}", 1)
        for number in range(count):
            mine.add(f"stranger {number}", 1)
        assert all(mine.total(f"key {n}") == n % 7 + 1 for n in range(count))
        assert all(mine.total(f"stranger {n}") == 1 for n in range(count))
    mine.close()


def test_a_worker_that_is_alone_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SHARED_VARIABLE, raising=False)
    tally = Tally("test")
    tally.add("ann", 2)
    tally.add("ann", -2)
    assert tally.total("ann") == 0
    tally.close()


def test_a_lock_is_held_by_one_thread_of_all_processes(shared: Path) -> None:
    lock, inside, most = SharedLock("test"), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with lock.held():
                inside += 1
                most = max(most, inside)
                inside -= 1

    with process("l = SharedLock('test')\nh = l.held()\nh.__enter__()"):
        waiting = threading.Thread(target=work)
        waiting.start()
        time.sleep(0.2)
        assert most == 0, "the other process has it"
    waiting.join(10)  # a process that was killed has it no longer
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: work(), range(4)))
    assert most == 1
    lock.close()
    assert [path.name for path in shared.iterdir()] == ["lock-test"]


def test_a_table_with_more_keys_than_room_forgets_those_with_the_least(shared: Path) -> None:
    table = SharedTable("test", numbers=2, slots=64)
    for number in range(1, 1001):
        key = f"key {number}"
        with table.locked():
            at, found = table.find(key)
            assert found is None
            table.put(at, key, float(number), 7.0)
    with table.locked():
        kept = [n for n in range(1, 1001) if table.find(f"key {n}")[1] == (float(n), 7.0)]
    assert 1000 in kept
    assert 32 <= len(kept) <= 64
    assert min(kept) > 500
    table.close()
    assert shared.joinpath("table-test").stat().st_size == 64 * 24


def test_guesses_at_a_password_are_counted_by_all_workers_together(shared: Path) -> None:
    del shared
    one, other = Throttle(name="a"), Throttle(name="a")
    elsewhere = Throttle(name="b")
    for number in range(PAIR.free + 1):
        (one, other)[number % 2].failed("1.1.1.1", "ann")
    for throttle in (one, other):
        with pytest.raises(Throttled):
            throttle.check("1.1.1.1", "ann")
    elsewhere.check("1.1.1.1", "ann")
    other.succeeded("1.1.1.1", "ann")
    one.check("1.1.1.1", "ann")
    for throttle in (one, other, elsewhere):
        throttle.close()
