"""Limits: who is refused, what a refusal says, and when an alarm is raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.ledger import (
    NOTHING,
    Alarm,
    Amount,
    Effect,
    Limit,
    LimitExceeded,
    Measure,
    SQLiteLedger,
)

SCOPES = ("server", "user:alice")


@pytest.fixture
def alarms() -> list[Alarm]:
    return []


@pytest.fixture
def ledger(tmp_path: Path, alarms: list[Alarm]) -> Iterator[SQLiteLedger]:
    with SQLiteLedger(str(tmp_path / "ledger"), on_alarm=alarms.append) as ledger:
        yield ledger


def put(ledger: SQLiteLedger, name: str, size: int, before: Amount = NOTHING) -> None:
    """Account an item of `size` bytes; 0 removes it."""
    with ledger.changing("", [name]):
        after = Amount(size, 1) if size else NOTHING
        ledger.settle(ledger.intend("", [Effect(name, SCOPES, before, after)]))
    ledger.usage("server")


def test_a_refusal_names_the_scope_and_the_numbers(ledger: SQLiteLedger) -> None:
    ledger.set_limit("user:alice", Limit(hard_bytes=1000))
    put(ledger, "a", 600)
    ledger.reserve("", SCOPES, Amount(300, 1))
    with pytest.raises(LimitExceeded) as caught:
        ledger.reserve("", SCOPES, Amount(101, 1))
    refused = caught.value
    assert (refused.scope, refused.measure) == ("user:alice", Measure.BYTES)
    assert (refused.limit, refused.used, refused.reserved, refused.asked) == (1000, 600, 300, 101)
    assert "user:alice" in str(refused)
    assert "1000 bytes" in str(refused)


def test_the_limit_can_be_reached_exactly(ledger: SQLiteLedger) -> None:
    ledger.set_limit("server", Limit(hard_bytes=1000, hard_objects=1))
    ledger.reserve("", SCOPES, Amount(1000, 1))
    with pytest.raises(LimitExceeded):
        ledger.reserve("", SCOPES, Amount(1, 0))


def test_a_refusal_by_one_scope_reserves_in_none(ledger: SQLiteLedger) -> None:
    ledger.set_limit("user:alice", Limit(hard_objects=1))
    ledger.reserve("", SCOPES, Amount(10, 1))
    with pytest.raises(LimitExceeded) as caught:
        ledger.reserve("", SCOPES, Amount(10, 1))
    assert caught.value.measure is Measure.OBJECTS
    assert ledger.usage("server").reserved == Amount(10, 1)


def test_a_refused_growth_leaves_the_reservation(ledger: SQLiteLedger) -> None:
    ledger.set_limit("server", Limit(hard_bytes=100))
    reservation = ledger.reserve("", SCOPES, Amount(60, 1))
    with pytest.raises(LimitExceeded):
        ledger.grow(reservation, Amount(101, 1))
    assert ledger.usage("server").reserved == Amount(60, 1)
    ledger.grow(reservation, Amount(100, 1))
    ledger.release(reservation)
    ledger.release(reservation)
    assert ledger.usage("server").reserved == NOTHING


def test_steps_are_large_far_from_the_limit_and_exact_near_it(ledger: SQLiteLedger) -> None:
    ledger.set_limit("server", Limit(hard_bytes=10_000))
    far = ledger.reserve("", SCOPES, Amount(10, 1), wanted=Amount(500, 1))
    assert far.held == Amount(500, 1)
    near = ledger.reserve("", SCOPES, Amount(10, 1), wanted=Amount(5000, 1))
    assert near.held == Amount(10, 1)


def test_an_announced_size_is_refused_early_without_being_held(ledger: SQLiteLedger) -> None:
    ledger.set_limit("server", Limit(hard_bytes=1000))
    with pytest.raises(LimitExceeded):
        ledger.reserve("", SCOPES, Amount(10, 1), fitting=Amount(1001, 1))
    ledger.reserve("", SCOPES, Amount(10, 1), fitting=Amount(1000, 1))
    assert ledger.usage("server").reserved == Amount(10, 1)


def test_a_limit_below_what_is_used_refuses_what_adds_and_nothing_else(
    ledger: SQLiteLedger,
) -> None:
    put(ledger, "a", 600)
    ledger.set_limit("server", Limit(hard_bytes=100))
    with pytest.raises(LimitExceeded):
        put(ledger, "b", 1)
    put(ledger, "a", 500, before=Amount(600, 1))
    put(ledger, "a", 0, before=Amount(500, 1))
    assert ledger.usage("server").used == NOTHING


def test_limits_and_usage_are_there_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "state" / "ledger")
    with SQLiteLedger(path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=100, soft_objects=7))
        put(ledger, "a", 60)
    with SQLiteLedger(path) as ledger:
        usage = ledger.usage("server")
        assert usage.limit == Limit(hard_bytes=100, soft_objects=7)
        assert usage.used == Amount(60, 1)
        assert usage.reserved == NOTHING


def test_a_ledger_can_be_opened_again(ledger: SQLiteLedger) -> None:
    put(ledger, "a", 60)
    ledger.close()
    ledger.open()
    put(ledger, "b", 40)
    assert ledger.usage("server").used == Amount(100, 2)


def test_what_lingers_is_written_without_anybody_asking(
    tmp_path: Path,
) -> None:
    raised = threading.Event()

    def note(alarm: Alarm) -> None:
        raised.set()

    with SQLiteLedger(str(tmp_path / "other"), on_alarm=note) as other:
        other.set_limit("server", Limit(hard_bytes=100))
        effect = Effect("a", SCOPES, NOTHING, Amount(90, 1))
        other.settle(other.intend("", [effect]))
        assert raised.wait(60)


def test_all_accounts_are_listed_in_order(ledger: SQLiteLedger) -> None:
    for number in range(1200):
        ledger.set_limit(f"user:{number:04}", Limit(hard_bytes=number))
    listed = [usage.scope for usage in ledger.usages()]
    assert listed == [f"user:{number:04}" for number in range(1200)]


class TestAlarms:
    def test_each_level_is_raised_once_and_again_only_after_it_was_cleared(
        self, ledger: SQLiteLedger, alarms: list[Alarm]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000))
        size = NOTHING
        for now in (790, 800, 801, 799, 760, 810, 751):
            put(ledger, "a", now, before=size)
            size = Amount(now, 1)
        assert [(alarm.level, alarm.cleared) for alarm in alarms] == [(0.8, False)]
        put(ledger, "a", 749, before=size)
        put(ledger, "a", 1000, before=Amount(749, 1))
        assert [(alarm.level, alarm.cleared) for alarm in alarms[1:]] == [
            (0.8, True),
            (0.8, False),
            (0.95, False),
            (1.0, False),
        ]
        assert alarms[-1] == Alarm("server", Measure.BYTES, 1.0, 1000, 1000)

    def test_a_soft_limit_raises_and_refuses_nothing(
        self, ledger: SQLiteLedger, alarms: list[Alarm]
    ) -> None:
        ledger.set_limit("user:alice", Limit(soft_bytes=100, soft_objects=2))
        put(ledger, "a", 100)
        put(ledger, "b", 100)
        assert [(a.scope, a.measure, a.level) for a in alarms] == [
            ("user:alice", Measure.BYTES, None),
            ("user:alice", Measure.OBJECTS, None),
        ]

    def test_a_restart_does_not_raise_it_again(self, tmp_path: Path, alarms: list[Alarm]) -> None:
        for _ in range(2):
            with SQLiteLedger(str(tmp_path / "l"), on_alarm=alarms.append) as ledger:
                ledger.set_limit("server", Limit(hard_bytes=100))
                before = ledger.usage("server").used
                put(ledger, "a", 90, before=before)
        assert len(alarms) == 1

    def test_setting_a_limit_raises_it_where_it_is_passed_already(
        self, ledger: SQLiteLedger, alarms: list[Alarm]
    ) -> None:
        put(ledger, "a", 90)
        ledger.set_limit("server", Limit(hard_bytes=100))
        assert [alarm.level for alarm in alarms] == [0.8]

    def test_a_callback_may_use_the_ledger_and_may_fail(self, tmp_path: Path) -> None:
        seen = []

        def callback(alarm: Alarm) -> None:
            seen.append(used.usage(alarm.scope).used)
            raise RuntimeError("the pager is down")

        with SQLiteLedger(str(tmp_path / "l"), on_alarm=callback) as used:
            used.set_limit("server", Limit(hard_bytes=100))
            put(used, "a", 80)
        assert seen == [Amount(80, 1)]
