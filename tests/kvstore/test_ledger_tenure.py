"""A process that holds all of a ledger's locks for a while: it keeps nobody waiting for long, and
whatever becomes of it nothing is lost, counted twice or held for ever.

Two ledgers on one file are to each other as two processes are.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.errors import ObjectExists
from backupgw.kvstore.ledger import (
    NOTHING,
    Amount,
    Effect,
    Limit,
    LimitExceeded,
    NewItem,
    SQLiteLedger,
    short_way,
)
from backupgw.kvstore.ledger.sqlite_session import SQLiteSession
from backupgw.kvstore.ledger.tenure import Tenure

SCOPES = ("server",)
ONE = Amount(100, 1)
LAST = ("last", "first", "last but one", "last but two")
"""What is stored when it happens; the first one is there already."""
KILLED = 9
SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
PARTS = 4 if SOAK else 1
"""Every line in all, in parts that can be had by themselves."""
SOON = 20.0
"""Seconds that nothing here may take, by far, however busy the machine is."""


def tenure_of(ledger: SQLiteLedger) -> Tenure:
    session = ledger._session
    assert isinstance(session, SQLiteSession)
    assert session._tenure is not None
    return session._tenure


def begin(ledger: SQLiteLedger, name: str) -> NewItem | None:
    return ledger.begin_new("", name, SCOPES, 100, lambda _name: True, at_once=True)


def upload(ledger: SQLiteLedger, name: str) -> bool:
    """Account a new item; returns whether it went the short way."""
    item = begin(ledger, name)
    if item is not None:
        ledger.end_new(item, settled=True)
        return True
    with ledger.changing("", [name]):
        ledger.settle(ledger.intend("", [Effect(name, SCOPES, NOTHING, ONE)]))
    return False


def take_tenure(ledger: SQLiteLedger, prefix: str) -> int:
    """Upload until the ledger has all locks; returns how many there were."""
    deadline = time.monotonic() + SOON
    count = 0
    while time.monotonic() < deadline:
        upload(ledger, f"{prefix}/{count}")
        count += 1
        if tenure_of(ledger).taken:
            return count
        time.sleep(0.01)
    pytest.fail("no tenure was taken: this shows nothing")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[SQLiteLedger, SQLiteLedger]]:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
        yield one, other


class TestOthers:
    """What others want while one has the tenure."""

    @pytest.mark.parametrize("idle", [True, False])
    def test_they_get_at_the_ledger_while_it_is_busy_and_when_it_is_idle(
        self, both: tuple[SQLiteLedger, SQLiteLedger], idle: bool
    ) -> None:
        one, other = both
        count = take_tenure(one, "a")
        stop = threading.Event()
        counts = [0]

        def work() -> None:
            while not stop.is_set():
                upload(one, f"b/{counts[0]}")
                counts[0] += 1

        thread = threading.Thread(target=work)
        if not idle:
            thread.start()
        try:
            started = time.monotonic()
            for number in range(20):
                upload(other, f"c/{number}")
                other.usage("server")
            assert time.monotonic() - started < SOON
        finally:
            stop.set()
            if not idle:
                thread.join(60)
        one.usage("server")
        total = count + counts[0] + 20
        assert other.usage("server").used == Amount(100 * total, total)

    def test_who_wants_a_name_under_way_gets_it_when_its_item_is_there_and_no_sooner(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, other = both
        take_tenure(one, "a")
        item = begin(one, "wanted")
        assert item is not None
        order = []

        def change(name: str) -> None:
            with other.changing("", [name]):
                order.append(name)

        waiting = threading.Thread(target=change, args=("wanted",))
        free = threading.Thread(target=change, args=("free",))
        waiting.start()
        free.start()
        free.join(SOON)
        assert order == ["free"], "another name was held, or that of an item under way was not"
        assert begin(other, "wanted") is None
        order.append("there")
        one.end_new(item, settled=True)
        waiting.join(SOON)
        assert order == ["free", "there", "wanted"]

    def test_a_thread_of_the_same_process_waits_no_longer_than_others(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, _ = both
        take_tenure(one, "a")
        started = time.monotonic()
        with one.changing("", ["b", "c"]):
            assert not tenure_of(one).taken
        assert time.monotonic() - started < SOON

    def test_the_dead_are_found_and_their_names_are_looked_up_behind_it(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, other = both
        with SQLiteLedger(one.path) as dead:
            dead.intend("", [Effect("left open", SCOPES, NOTHING, ONE)])
        take_tenure(one, "a")
        report = other.recover("", lambda _name: ONE)
        assert [repair.name for repair in report.repairs] == ["left open"]

    def test_a_count_sees_all_of_it(self, both: tuple[SQLiteLedger, SQLiteLedger]) -> None:
        one, other = both
        there: dict[str, None] = {}
        stop = threading.Event()
        problems: list[BaseException] = []

        def work() -> None:
            number = 0
            try:
                while not stop.wait(0.0003):  # counts take the longer the more there are
                    name = f"item {number}"
                    number += 1
                    item = begin(one, name)
                    if item is not None:
                        there[name] = None
                        one.end_new(item, settled=True)
                        continue
                    with one.changing("", [name]):
                        change = one.intend("", [Effect(name, SCOPES, NOTHING, ONE)])
                        there[name] = None
                        one.settle(change)
            except BaseException as error:  # noqa: BLE001 - told by the test itself
                problems.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            while len(there) < 500 and not problems:
                listed = lambda _folder: [ItemInfo(n, True, 100, False) for n in list(there)]  # noqa: E731
                report = other.reconcile("", listed, lambda _name: SCOPES)
                assert not report.corrections or report.corrections[0].recorded == NOTHING
        finally:
            stop.set()
            thread.join(60)
        assert not problems
        one.usage("server")
        assert other.usage("server").used == Amount(100 * len(there), len(there))

    def test_a_limit_that_another_sets_holds_from_then_on(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, other = both
        count = take_tenure(one, "a")
        other.set_limit("server", Limit(hard_objects=count + 2))
        assert upload(one, "b") in (True, False)
        upload(one, "c")
        assert begin(one, "d") is None
        with pytest.raises(LimitExceeded):
            upload(one, "d")
        one.usage("server")
        assert other.usage("server").used.objects == count + 2


class TestThreads:
    """Of the process that has the tenure."""

    def test_a_name_is_had_by_one_at_a_time_and_all_are_counted(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, other = both
        count = take_tenure(one, "a")
        taken: list[str] = []
        under_way: set[str] = set()
        twice = []

        def work(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(400):
                name = f"b/{chance.randrange(40)}"
                item = one.begin_new(
                    "", name, SCOPES, 100, lambda name: name not in taken, at_once=True
                )
                if item is None:
                    continue
                if name in under_way or name in taken:
                    twice.append(name)
                under_way.add(name)
                time.sleep(0)
                taken.append(name)
                under_way.discard(name)
                one.end_new(item, settled=True)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not twice
        assert len(taken) > 20, "most went the long way: this shows little"
        one.usage("server")
        total = count + len(taken)
        assert other.usage("server").used == Amount(100 * total, total)
        assert other.usage("server").reserved == NOTHING

    def test_who_changes_what_was_just_uploaded_does_not_wait_for_its_record(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, _ = both
        count = take_tenure(one, "a")
        for number in range(50):
            assert upload(one, f"b/{number}") in (True, False)
            with one.changing("", [f"b/{number}"]):
                one.settle(one.intend("", [Effect(f"b/{number}", SCOPES, ONE, NOTHING)]))
        assert one.usage("server").used == Amount(100 * count, count)


class TestItsEnd:
    def test_it_ends_soon_when_nothing_comes(self, both: tuple[SQLiteLedger, SQLiteLedger]) -> None:
        one, other = both
        take_tenure(one, "a")
        deadline = time.monotonic() + SOON
        while tenure_of(one).taken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not tenure_of(one).taken
        item = begin(other, "b")
        if item is None:  # it knew no accounts yet
            assert not upload(other, "b")
        else:
            other.end_new(item, settled=True)

    def test_closing_leaves_an_item_under_way_its_name(
        self, both: tuple[SQLiteLedger, SQLiteLedger]
    ) -> None:
        one, other = both
        take_tenure(one, "a")
        item = begin(one, "b")
        assert item is not None
        one.close()
        try:
            assert begin(other, "b") is None
            item.holder.let_go(item.held)
            with other.changing("", ["b"]):
                pass
        finally:
            one.open()

    def test_a_fork_leaves_it_to_the_parent(self, both: tuple[SQLiteLedger, SQLiteLedger]) -> None:
        one, other = both
        count = take_tenure(one, "a")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                upload(one, "of the child")
                one.usage("server")
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        upload(one, "of the parent")
        one.usage("server")
        assert other.usage("server").used.objects == count + 2


class Killer:
    """Ends the process at the n-th line that it runs in the parts that account for an upload."""

    def __init__(self, lines: int) -> None:
        self._lines = lines

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        if not (
            "/ledger/" in path
            or "quota_gate" in path
            or "posixfs_writer" in path
            or "posixfs_look" in path
        ):
            return None
        if event == "line":
            self._lines -= 1
            if self._lines < 0:
                os._exit(KILLED)
        return self


def upload_and_die(folder: Path, lines: int, *, in_tenure: bool) -> NoReturn:
    """Run in a process of its own."""
    status = 1
    try:
        with quota_place.ledger_of(folder) as ledger, quota_place.layer_of(folder, ledger) as place:
            short_way.SOME_SETTLED = 2  # that the last ones meet either kind of record
            while in_tenure and not tenure_of(ledger).taken:
                store(place, os.urandom(8).hex())
            sys.settrace(Killer(lines))
            for name in LAST:
                store(place, name)
            sys.settrace(None)
        status = 0
    finally:
        os._exit(status)


def store(place: Any, name: str) -> None:
    try:
        with place.open_writer(f"alice/main/data/{name}", size=100, if_absent=True) as writer:
            writer.write(b"x" * 100)
    except ObjectExists:
        pass


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("in_tenure", [True, False])
def test_a_kill_between_any_two_steps_of_an_upload_leaves_the_accounts_right(
    tmp_path: Path, in_tenure: bool, part: int
) -> None:
    quota_place.make(tmp_path)
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=1 << 40))
        with quota_place.layer_of(tmp_path, ledger) as place:
            store(place, "first")
    killed = happened = 0
    for lines in range(part, 100_000, PARTS if SOAK else 13):
        child = os.fork()
        if child == 0:
            upload_and_die(tmp_path, lines, in_tenure=in_tenure)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with quota_place.ledger_of(tmp_path) as ledger:
            assert not ledger.needs_reconcile("")
            with quota_place.layer_of(tmp_path, ledger) as place:
                found = quota_place.on_disk(tmp_path)
                assert quota_place.in_ledger(ledger) == found, f"killed after {lines} lines"
                assert quota_place.nothing_reserved(ledger)
                for name in set(LAST) - {"first"}:
                    if place.info(f"alice/main/data/{name}").exists:
                        happened += status != 0
                        place.delete(f"alice/main/data/{name}")
        if status == 0:
            break
        assert status == KILLED
        killed += 1
    assert killed > 20, "the upload has few steps: this shows little"
    assert happened > 5, "nobody was killed after an item had got its name: this shows little"
