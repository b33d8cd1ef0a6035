"""The short way of new items through a ledger in SQLite: nobody could tell it from the long one.

Two ledgers on one file are to each other as two processes are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest

from backupgw.kvstore.ledger import (
    NOTHING,
    Alarm,
    Amount,
    Change,
    Effect,
    Limit,
    LimitExceeded,
    SQLiteLedger,
)
from backupgw.kvstore.ledger import sqlite_log as log_file
from backupgw.kvstore.ledger.sqlite_session import SQLiteSession

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
        way = SQLiteSession.intend_new

        def counted(session: SQLiteSession, place: str, effect: Effect, lease: float) -> int | None:
            number = way(session, place, effect, lease) if self.short else None
            self.taken += number is not None
            return number

        with patch.object(SQLiteSession, "intend_new", counted):
            said = self._do(ledger, chance)
        return (
            said,
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
            ending = chance.randrange(4)
            if ending == 0:
                ledger.release(change)
            elif ending == 1:
                ledger.resolve(change, [after])
            else:
                ledger.settle(change)
            self.held[key] = before if ending == 0 else after
            return "ended"
        if before:
            scopes = self.scopes[key]
            with ledger.changing(place, [name]):
                ledger.settle(ledger.intend(place, [Effect(name, scopes, before, NOTHING)]))
            self.held[key] = NOTHING
            return "freed"
        amount = Amount(chance.randrange(300), 1)
        try:
            with ledger.changing(place, [name]):
                change = ledger.intend(place, [Effect(name, scopes, NOTHING, amount)])
        except LimitExceeded as refused:
            return f"refused {refused.scope} {refused.measure} {refused.used} {refused.reserved}"
        self.open[key] = change
        self.scopes[key] = scopes
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
    for seed in range(2000):
        if seed % 500 == 0:  # far from the limit, and at it
            for twins in pairs:
                size = 7000 if seed % 1000 else 30_000
                twins.ledgers[1].set_limit("server", Limit(hard_bytes=size, soft_bytes=3000))
        seen = short.step(seed)
        assert seen == long.step(seed), f"step {seed}"
        said.add(str(seen)[2:6])
    assert {"inte", "ende", "free", "refu"} <= said
    assert short.alarms, "no alarm was due: this shows too little"
    assert short.taken > 100, "the short way was not taken: this shows nothing"
    assert long.taken == 0


def test_a_third_process_reads_from_the_log_what_went_the_short_way(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path) as one:
        for number in range(50):
            with one.changing("", [f"{number}"]):
                effect = Effect(f"{number}", SCOPES[2], NOTHING, Amount(100, 1))
                one.settle(one.intend("", [effect]))
        with SQLiteLedger(path) as late:
            one.usage("server")  # what lingers is done
            for scope in SCOPES[2]:
                assert late.usage(scope).used == Amount(5000, 50)
                assert late.usage(scope).reserved == NOTHING


def test_what_lingers_of_one_process_is_settled_by_the_recovery_of_another(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger")
    with SQLiteLedger(path, lease=-1) as one, SQLiteLedger(path) as other:
        for number in range(3):
            with one.changing("", [f"{number}"]):
                effect = Effect(f"{number}", ("server",), NOTHING, Amount(100, 1))
                last = one.intend("", [effect])
                if number < 2:
                    one.settle(last)
        report = other.recover("", lambda name: NOTHING if name == "2" else Amount(100, 1))
        assert {repair.name for repair in report.repairs} >= {"2"}
        one.settle(last)  # too late: it was seen that nothing is there
        assert one.usage("server").used == Amount(200, 2)
        assert other.usage("server").reserved == NOTHING
