"""New items go the short way while their place is counted, and each is counted exactly once."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from tests.kvstore import quota_place
from tests.kvstore.test_ledger_tenure import (
    KILLED,
    ONE,
    SCOPES,
    SOAK,
    Killer,
    begin,
    store,
    tenure_of,
    upload,
)

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import NOTHING, Amount, Effect, Limit, SQLiteLedger

PATIENCE = 20.0
"""Seconds that nothing here may take, by far."""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[SQLiteLedger, SQLiteLedger]]:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
        yield one, other


def entries(there: Iterable[str], folder: str) -> Iterator[ItemInfo]:
    """List what is directly in a folder."""
    prefix = f"{folder}/" if folder else ""
    below = [name[len(prefix) :] for name in there if name.startswith(prefix)]
    for name in {each.partition("/")[0] for each in below if "/" in each}:
        yield ItemInfo(name, True, 0, True)
    for name in below:
        if "/" not in name:
            yield ItemInfo(name, True, 100, False)


@contextmanager
def counting(ledger: SQLiteLedger, there: dict[str, None], paused: str) -> Iterator[None]:
    """Have a count go on that is in the middle of a folder inside, and ends well afterwards."""
    there_now, go_on = threading.Event(), threading.Event()
    corrections: list[object] = []

    def listing(folder: str) -> Iterator[ItemInfo]:
        found = list(entries(list(there), folder))
        if folder == paused:
            there_now.set()
            assert go_on.wait(PATIENCE)
        yield from found

    def work() -> None:
        corrections.extend(ledger.reconcile("", listing, lambda _name: SCOPES).corrections)

    thread = threading.Thread(target=work)
    thread.start()
    assert there_now.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()
        thread.join(PATIENCE)
    assert corrections == []


@contextmanager
def being_counted(
    both: tuple[SQLiteLedger, SQLiteLedger], *names: str
) -> Iterator[dict[str, None]]:
    """Have these items there, known to both ledgers, while the other one counts in the middle of
    the folder "m"; yields what is there."""
    one, other = both
    there = dict.fromkeys(names)
    for name in there:
        upload(one, name)
    other.reconcile("", lambda folder: entries(there, folder), lambda _name: SCOPES)
    with counting(other, there, "m"):
        yield there


def test_nobody_is_kept_waiting_by_a_list(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, other = both
    with being_counted(both, "a/1", "m/1", "z/1") as there:
        # Counted, listed just now, still to be counted, and not there before.
        for folder in ("a", "m", "m/below", "z", "new"):
            short = 0
            for number in range(2, 12):
                there[f"{folder}/{number}"] = None
                short += upload(one, f"{folder}/{number}")
            assert short >= 8, folder
            for number in range(12, 22):  # by the process that counts
                there[f"{folder}/{number}"] = None
                upload(other, f"{folder}/{number}")
        for number in range(3000):  # more than the log has room for
            there[f"m/{number} more"] = None
            upload(one, f"m/{number} more")
    # Counted a second time, and by a count of its own.
    report = other.reconcile("", lambda folder: entries(there, folder), lambda _name: SCOPES)
    assert report.corrections == []
    assert one.usage("server").used == Amount(100 * len(there), len(there))
    upload(one, "m/3")  # it asks for the accounts
    assert upload(one, "m/4")


def test_an_item_under_way_keeps_its_own_folders_waiting_and_no_others(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, other = both
    with being_counted(both, "a/b/1", "m/1", "z/1") as there:
        there["z/2"] = None
        upload(one, "z/2")  # it asks for the accounts
        begun = [begin(one, f"z/{number}") for number in range(3, 6)]
        listed = threading.Event()

        def listing() -> None:
            with other._session.locks.listing("", "z"):
                listed.set()

        waiting = threading.Thread(target=listing)
        waiting.start()
        for item in begun:
            assert not listed.wait(0.05)
            assert item is not None
            there[f"z/{len(there)}"] = None
            one.end_new(item, settled=True)
        assert listed.wait(PATIENCE)
        waiting.join()


def test_each_is_counted_once_whatever_the_count_has_seen_of_it(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    there: dict[str, None] = {}
    folders = ["", "a/", "a/b/", "m/", "z/"]
    stop = threading.Event()
    ways: Counter[bool] = Counter()
    problems: list[BaseException] = []
    flags = tenure_of(both[1]).flags

    def work(ledger: SQLiteLedger, mine: str) -> None:
        chance, number = random.Random(mine), 0
        try:
            while not stop.is_set():
                number += 1
                fresh = f"{mine}{number // 50}/" if number % 7 == 0 else chance.choice(folders)
                name = f"{fresh}{mine}{number}"
                counted = bool(flags[0])
                item = begin(ledger, name)
                if item is not None:
                    there[name] = None
                    ledger.end_new(item, settled=True)
                else:
                    with ledger.changing("", [name]):
                        change = ledger.intend("", [Effect(name, SCOPES, NOTHING, ONE)])
                        there[name] = None
                        ledger.settle(change)
                if counted:
                    ways[item is not None] += 1
                if number % 5 == 0:
                    with ledger.changing("", [name]):
                        change = ledger.intend("", [Effect(name, SCOPES, ONE, NOTHING)])
                        del there[name]
                        ledger.settle(change)
        except BaseException as error:  # noqa: BLE001 - told by the test itself
            problems.append(error)

    threads = [threading.Thread(target=work, args=(both[n % 2], f"t{n}-")) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(400 if SOAK else 20):
            report = both[number % 2].reconcile(
                "", lambda folder: entries(list(there), folder), lambda _name: SCOPES
            )
            assert not number or not report.corrections, number
            if len(there) > 20_000:
                break  # it would only take longer and longer
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not problems
    assert ways[True] > 20, ways
    both[0].usage("server")
    assert both[1].usage("server").used == Amount(100 * len(there), len(there))


def upload_and_die(folder: Path, lines: int) -> NoReturn:
    """Run in a process of its own."""
    status = 1
    try:
        with quota_place.ledger_of(folder) as ledger, quota_place.layer_of(folder, ledger) as place:
            store(place, "asks for the accounts")
            sys.settrace(Killer(lines))
            for number in range(3):
                store(place, str(number))
            sys.settrace(None)
        status = 0
    finally:
        os._exit(status)


@contextmanager
def counter(folder: Path, paused: str) -> Iterator[None]:
    """Have a process count that is in the middle of a folder inside, and finds all right
    afterwards."""
    told, telling = os.pipe()
    asked, asking = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with quota_place.ledger_of(folder) as ledger:
                layer = quota_place.layer_of(folder, ledger)
                layer.inner.open()

                def listing(name: str) -> Iterator[ItemInfo]:
                    found = layer.list_all(name)
                    if name == paused:
                        found = iter(list(found))
                        os.write(telling, b"1")
                        os.read(asked, 1)
                    yield from found

                report = ledger.reconcile("", listing, layer.scopes_of, lookup=layer.held_by)
            status = 0 if not report.corrections else 2
        finally:
            os._exit(status)
    try:
        assert os.read(told, 1)
        yield
    finally:
        os.write(asking, b"1")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for pipe in (told, telling, asked, asking):
            os.close(pipe)
    assert status == 0, "the accounts were not what the count found"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("paused", ["aaa", "alice/main/data", "zzz"])
def test_a_kill_at_any_line_of_an_upload_during_a_count_leaves_the_accounts_right(
    tmp_path: Path, paused: str
) -> None:
    quota_place.make(tmp_path)
    (tmp_path / "store" / paused).mkdir(parents=True)
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=1 << 40))
        with quota_place.layer_of(tmp_path, ledger) as place:
            store(place, "first")
            place.reconcile()
    killed = 0
    for lines in range(0, 100_000, 5 if SOAK else 97):
        with counter(tmp_path, paused):
            child = os.fork()
            if child == 0:
                upload_and_die(tmp_path, lines)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with quota_place.ledger_of(tmp_path) as ledger, quota_place.layer_of(tmp_path, ledger):
                assert quota_place.in_ledger(ledger) == quota_place.on_disk(tmp_path), lines
                assert quota_place.nothing_reserved(ledger)
        with (
            quota_place.ledger_of(tmp_path) as ledger,
            quota_place.layer_of(tmp_path, ledger) as it,
        ):
            assert quota_place.in_ledger(ledger) == quota_place.on_disk(tmp_path), lines
            for name in ("asks for the accounts", "0", "1", "2"):
                if it.info(f"alice/main/data/{name}").exists:
                    it.delete(f"alice/main/data/{name}")
        if status == 0:
            break
        assert status == KILLED
        killed += 1
    assert killed >= 5, "the upload has few steps: this shows little"


def count_and_die(folder: Path, lines: int) -> NoReturn:
    """Run in a process of its own."""
    status = 1
    try:
        with quota_place.ledger_of(folder) as ledger, quota_place.layer_of(folder, ledger) as place:

            def listing(name: str) -> Iterator[ItemInfo]:
                yield from place.list_all(name)
                if name == "alice/main/data":
                    for number in range(3):
                        store(place, str(number))
                    place.delete("alice/main/data/first")

            sys.settrace(Killer(lines))
            ledger.reconcile("", listing, place.scopes_of, lookup=place.held_by)
            sys.settrace(None)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.timeout(600)
def test_a_kill_at_any_line_of_a_count_leaves_the_accounts_right(tmp_path: Path) -> None:
    quota_place.make(tmp_path)
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=1 << 40))
    killed = 0
    for lines in range(0, 100_000, 11 if SOAK else 397):
        with (
            quota_place.ledger_of(tmp_path) as ledger,
            quota_place.layer_of(tmp_path, ledger) as it,
        ):
            for name in list(quota_place.names(tmp_path)):
                it.delete(name)
            store(it, "first")
        child = os.fork()
        if child == 0:
            count_and_die(tmp_path, lines)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with (
            quota_place.ledger_of(tmp_path) as ledger,
            quota_place.layer_of(tmp_path, ledger) as it,
        ):
            store(it, "later")
            assert quota_place.in_ledger(ledger) == quota_place.on_disk(tmp_path), lines
            assert quota_place.nothing_reserved(ledger)
            assert it.reconcile().corrections == [], lines
        if status == 0:
            break
        assert status == KILLED
        killed += 1
    assert killed >= 5, "the count has few steps: this shows little"
