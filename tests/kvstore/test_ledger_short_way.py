"""The short way of new items through a ledger in SQLite: nobody could tell it from the long one.

Two ledgers on one file are to each other as two processes are.
"""

from __future__ import annotations

import json
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backupgw.kvstore.ledger import (
    NOTHING,
    Alarm,
    Amount,
    Change,
    Effect,
    Item,
    LedgerFull,
    Limit,
    LimitExceeded,
    NewItem,
    SQLiteLedger,
)
from backupgw.kvstore.ledger import sqlite_log as log_file

PLACES = ("", 'a place with "quotes", ü')
SCOPES = (("server",), ("server", "user:%d é"), ("server", "user:%d é", 'repo:"x"'))


class Twins:
    """Two processes' ledgers on one file, and what they were told; one pair goes the short way,
    the other cannot."""

    def __init__(self, path: Path, *, short: bool) -> None:
        self.alarms: list[Alarm] = []
        self.short = short
        self.taken = 0
        self.ledgers = [SQLiteLedger(str(path), on_alarm=self.alarms.append) for _ in range(2)]
        self.held: dict[str, Amount] = {}
        self.open: dict[str, Change] = {}
        self.items: dict[str, NewItem] = {}
        self.scopes: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Twins:
        self._stack = ExitStack()
        for ledger in self.ledgers:
            self._stack.enter_context(ledger)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, seed: int) -> object:
        """Do one thing; the same seed is the same thing. Returns what can be seen afterwards."""
        chance = random.Random(seed)
        ledger = self.ledgers[chance.randrange(2)]
        return (
            self._do(ledger, chance),
            [ledger.usage(scope) for scope in SCOPES[-1]],
            sorted(str(alarm) for alarm in self.alarms),
        )

    def _do(self, ledger: SQLiteLedger, chance: random.Random) -> str:
        name = f"folder/{chance.randrange(40)}"
        place = chance.choice(PLACES)
        scopes: tuple[str, ...] = chance.choice(SCOPES)
        key = f"{place}:{name}"
        before = self.held.get(key, NOTHING)
        if key in self.open:
            change = self.open.pop(key)
            after = change.effects[0].after
            item = self.items.pop(key, None)
            ending = chance.randrange(4)
            if ending == 0:
                ledger.release(change)
            elif ending == 1:
                ledger.resolve(change, [after])
            elif item is None:
                ledger.settle(change)
            if item is not None:
                ledger.end_new(item, settled=ending > 1)
            self.held[key] = before if ending == 0 else after
            return "ended"
        if before:
            scopes = self.scopes[key]
            with ledger.changing(place, [name]):
                ledger.settle(ledger.intend(place, [Effect(name, scopes, before, NOTHING)]))
            self.held[key] = NOTHING
            return "freed"
        amount = Amount(chance.randrange(300), 1)
        self.scopes[key] = scopes
        if chance.random() < 0.9 and self.short:
            item = ledger.begin_new(
                place, name, scopes, amount.bytes, lambda _name: True, at_once=True
            )
            if item is not None:
                self.taken += 1
                self.items[key] = item
                held = dict.fromkeys(scopes, amount)
                effect = Effect(name, scopes, NOTHING, amount)
                self.open[key] = Change(place, (item.generation,), (effect,), (held,))
                return "intended"
        try:
            with ledger.changing(place, [name]):
                change = ledger.intend(place, [Effect(name, scopes, NOTHING, amount)])
        except LimitExceeded as refused:
            return f"refused {refused.scope} {refused.measure} {refused.used} {refused.reserved}"
        self.open[key] = change
        return "intended"


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[tuple[Twins, Twins]]:
    with Twins(tmp_path / "short", short=True) as one, Twins(tmp_path / "long", short=False) as two:
        for twins in (one, two):
            twins.ledgers[0].set_limit(SCOPES[-1][1], Limit(hard_objects=80, soft_objects=20))
        yield one, two


@pytest.mark.parametrize("mapped", [True, False])
def test_whatever_happens_both_ways_come_to_the_same(
    pairs: tuple[Twins, Twins], mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "_overwrites_in_place", lambda _fd: mapped)
    short, long = pairs
    said = set()
    for seed in range(1000):
        if seed % 250 == 0:  # far from the limit, and at it
            for twins in pairs:
                size = 7000 if seed % 500 else 30_000
                twins.ledgers[1].set_limit("server", Limit(hard_bytes=size, soft_bytes=3000))
        seen = short.step(seed)
        assert seen == long.step(seed), f"step {seed}"
        said.add(str(seen)[2:6])
    assert {"inte", "ende", "free", "refu"} <= said
    assert short.alarms, "no alarm was due: this shows too little"
    assert short.taken > 50, "the short way was not taken: this shows nothing"
    assert long.taken == 0


def begin(ledger: SQLiteLedger, name: str, *scopes: str) -> NewItem:
    item = ledger.begin_new("", name, scopes or ("server",), 100, lambda _name: True, at_once=True)
    assert item is not None, "the way is the long one: this shows nothing"
    return item


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[SQLiteLedger, SQLiteLedger]]:
    """Two ledgers that know all accounts, as after the first upload."""
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
        for ledger in (one, other):
            with ledger.changing("", ["first"]):
                effect = Effect("first", SCOPES[2], NOTHING, Amount(1, 1))
                ledger.release(ledger.intend("", [effect]))
        yield one, other


def test_a_third_process_reads_from_the_log_what_went_the_short_way(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, _ = both
    for number in range(50):
        one.end_new(begin(one, str(number), *SCOPES[2]), settled=True)
    one.usage("server")  # what lingers is done
    with SQLiteLedger(one.path) as late:
        for scope in SCOPES[2]:
            assert late.usage(scope).used == Amount(5000, 50)
            assert late.usage(scope).reserved == NOTHING


def test_what_has_happened_is_on_record_soon_without_another_upload(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, other = both
    one.end_new(begin(one, "a"), settled=True)
    # Its turn comes with the thread that sees to what lingers, and that ends with the ledger.
    one.close()
    try:
        assert other.usage("server").used == Amount(100, 1)
    finally:
        one.open()


def test_a_name_is_held_until_its_item_is_there(both: tuple[SQLiteLedger, SQLiteLedger]) -> None:
    one, other = both
    item = begin(one, "a")
    for ledger in both:
        assert ledger.begin_new("", "a", ("server",), 1, lambda _name: True) is None
    waiting = threading.Event()
    order = []

    def change() -> None:
        waiting.set()
        with other.changing("", ["a"]):
            order.append("changed")

    thread = threading.Thread(target=change)
    thread.start()
    waiting.wait()
    assert thread.is_alive()
    order.append("there")
    one.end_new(item, settled=True)
    thread.join()
    assert order == ["there", "changed"]


def test_what_is_there_or_may_be_there_goes_the_long_way(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, _ = both
    assert one.begin_new("", "a", ("server",), 1, lambda _name: False) is None
    assert one.usage("server").reserved == NOTHING
    with one.changing("", ["a"]):
        pass  # nobody holds it


def test_a_name_with_an_open_end_goes_the_long_way(
    both: tuple[SQLiteLedger, SQLiteLedger],
) -> None:
    one, other = both
    one.end_new(begin(one, "a"), settled=False)  # nobody knows whether it is there
    for ledger in both:
        assert ledger.begin_new("", "a", ("server",), 100, lambda _name: True) is None
    with other.changing("", ["a"]):
        other.settle(other.intend("", [Effect("a", ("server",), NOTHING, Amount(100, 1))]))
    one.usage("server")
    assert other.usage("server").used == Amount(100, 1)
    assert other.usage("server").reserved == NOTHING


@pytest.mark.parametrize("asked", ["by recover", "by who writes it next"])
@pytest.mark.parametrize(("file", "counted"), [(7, 1), (8, 0), (0, 1)])
def test_the_file_tells_whether_a_new_item_got_its_name_before_its_process_died(
    tmp_path: Path, asked: str, file: int, counted: int
) -> None:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one, SQLiteLedger(path, lease=-1) as dying:
        one.reconcile("", lambda _folder: [], lambda _name: ("server",))
        with dying.changing("", ["first"]):
            dying.release(dying.intend("", [Effect("first", ("server",), NOTHING, Amount(1, 1))]))
        item = dying.begin_new("", "a", ("server",), 100, lambda _name: False, at_once=True, file=7)
        assert item is not None
        item.holder.let_go(item.held)
        found = Item.of(100, file)
        if asked == "by recover":
            report = one.recover("", lambda _name: found)
            assert [repair.found for repair in report.repairs] == [Amount(100 * counted, counted)]
        else:
            with one.changing("", ["a"]):
                one.release(one.intend("", [Effect("a", ("server",), found, Amount(50, 1))]))
        assert one.usage("server").used == Amount(100 * counted, counted)
        assert one.usage("server").reserved == NOTHING
        assert one.needs_reconcile("") == (file == 0), "nobody can tell, so it has to be counted"


@pytest.mark.parametrize("version", [3, 5])
def test_what_an_earlier_version_put_on_record_is_read(
    both: tuple[SQLiteLedger, SQLiteLedger], version: int
) -> None:
    one, other = both
    one.end_new(begin(one, "a", *SCOPES[1]), settled=True)
    one.usage("server")
    state = one._sqlite._state
    memory, log = state.memory, state.log
    assert memory is not None
    assert log is not None
    first, second = ((9 << 32) + number for number in (1, 2))
    end: int | None = memory.end
    for settled, number, size in (([], first, 7), ([first], second, 8)):
        name = f"name {number} é"
        if version == 3:
            former = [settled, number, 1 << 33, name, size, "", list(SCOPES[1])]
            record = b"+" + json.dumps(former).encode()
        else:
            text, tail = name.encode(), json.dumps(["", SCOPES[1]]).encode()
            start = struct.pack("<cBIqqq", b"*", len(settled), len(text), number, 1 << 33, size)
            record = start + struct.pack(f"<{len(settled)}q", *settled) + text + tail
        assert end is not None
        end = log.append(memory.tag, end, record)
    for ledger in both:
        usage = ledger.usage(SCOPES[1][1])
        assert usage.used == Amount(107, 2)
        assert usage.reserved == Amount(8, 1)
    assert other.begin_new("", f"name {second} é", SCOPES[1], 8, lambda _name: True) is None
    report = other.recover("", lambda _name: Amount(8, 1))
    assert not report.repairs, "its lease is not over, and so somebody may yet bring it"


def test_what_the_ledger_cannot_write_is_refused_and_told_later(
    both: tuple[SQLiteLedger, SQLiteLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    first = begin(one, "a")
    with monkeypatch.context() as full:

        def no_room(*_: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(log_file.Log, "append", no_room)
        one.end_new(first, settled=True)
        with pytest.raises(LedgerFull):
            one.begin_new("", "b", ("server",), 100, lambda _name: True)
        with one.changing("", ["b"]):
            pass  # nobody holds it
    assert one.usage("server").used == other.usage("server").used == Amount(100, 1)
    assert other.usage("server").reserved == NOTHING


def test_who_comes_too_late_settles_nothing_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path, lease=-1) as one, SQLiteLedger(path) as other:
        with one.changing("", ["first"]):
            one.release(one.intend("", [Effect("first", ("server",), NOTHING, Amount(1, 1))]))
        item = begin(one, "a")
        one.end_new(item, settled=False)  # as if its name were free, with its intent open
        report = other.recover("", lambda name: Amount(100, 1))
        assert [repair.name for repair in report.repairs] == ["a"]
        assert one._sqlite.short_way is not None
        one._sqlite.short_way._settled.append((item.generation, 0))
        for number in range(3):
            one.end_new(begin(one, str(number)), settled=True)
        one.usage("server")
        assert other.usage("server").used == Amount(400, 4)
        assert other.usage("server").reserved == NOTHING
