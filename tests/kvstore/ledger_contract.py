"""What every ledger keeps: these classes run on each, by way of two fixtures.

`make_ledger(name, ...)` returns a ledger, not open, over the state of that name; `clock` makes time
pass for the leases in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import (
    NOTHING,
    Alarm,
    Amount,
    Effect,
    LedgerError,
    LedgerFull,
    Limit,
    LimitExceeded,
    Measure,
    NameBusy,
    ReservationEnded,
    turns,
)
from backupgw.kvstore.ledger.transacted import TransactedLedger

LedgerUnderTest = TransactedLedger[Any]

USER = ("server", "user:alice")
SCOPES = ("server",)
ONE = Amount(60, 1)


class Clock(Protocol):
    """Seconds that pass only when told to, as far as leases go."""

    def advance(self, seconds: float) -> None: ...


class MakeLedger(Protocol):
    def __call__(self, name: str = "ledger", **options: Any) -> LedgerUnderTest: ...


def put(ledger: LedgerUnderTest, name: str, size: int, before: Amount = NOTHING) -> None:
    """Account an item of `size` bytes; 0 removes it."""
    with ledger.changing("", [name]):
        after = Amount(size, 1) if size else NOTHING
        ledger.settle(ledger.intend("", [Effect(name, USER, before, after)]))
    ledger.usage("server")


def intended(after: Amount, before: Amount = NOTHING, name: str = "a") -> Effect:
    return Effect(name, SCOPES, before, after)


class _Ledger:
    @pytest.fixture
    def alarms(self) -> list[Alarm]:
        return []

    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger, alarms: list[Alarm]) -> Iterator[LedgerUnderTest]:
        with make_ledger(on_alarm=alarms.append) as ledger:
            yield ledger


class _Limited:
    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger) -> Iterator[LedgerUnderTest]:
        with make_ledger(lease=100) as ledger:
            ledger.set_limit("server", Limit(hard_bytes=100))
            yield ledger


class Accounts(_Ledger):
    def test_a_refusal_names_the_scope_and_the_numbers(self, ledger: LedgerUnderTest) -> None:
        ledger.set_limit("user:alice", Limit(hard_bytes=1000))
        put(ledger, "a", 600)
        ledger.reserve("", USER, Amount(300, 1))
        with pytest.raises(LimitExceeded) as caught:
            ledger.reserve("", USER, Amount(101, 1))
        refused = caught.value
        assert (refused.scope, refused.measure) == ("user:alice", Measure.BYTES)
        assert (refused.limit, refused.used, refused.reserved, refused.asked) == (
            1000,
            600,
            300,
            101,
        )
        assert "user:alice" in str(refused)
        assert "1000 bytes" in str(refused)

    def test_the_limit_can_be_reached_exactly(self, ledger: LedgerUnderTest) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000, hard_objects=1))
        ledger.reserve("", USER, Amount(1000, 1))
        with pytest.raises(LimitExceeded):
            ledger.reserve("", USER, Amount(1, 0))

    def test_a_refusal_by_one_scope_reserves_in_none(self, ledger: LedgerUnderTest) -> None:
        ledger.set_limit("user:alice", Limit(hard_objects=1))
        ledger.reserve("", USER, Amount(10, 1))
        with pytest.raises(LimitExceeded) as caught:
            ledger.reserve("", USER, Amount(10, 1))
        assert caught.value.measure is Measure.OBJECTS
        assert ledger.usage("server").reserved == Amount(10, 1)

    def test_a_refused_growth_leaves_the_reservation(self, ledger: LedgerUnderTest) -> None:
        ledger.set_limit("server", Limit(hard_bytes=100))
        reservation = ledger.reserve("", USER, Amount(60, 1))
        with pytest.raises(LimitExceeded):
            ledger.grow(reservation, Amount(101, 1))
        assert ledger.usage("server").reserved == Amount(60, 1)
        ledger.grow(reservation, Amount(100, 1))
        ledger.release(reservation)
        ledger.release(reservation)
        assert ledger.usage("server").reserved == NOTHING

    def test_steps_are_large_far_from_the_limit_and_exact_near_it(
        self, ledger: LedgerUnderTest
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=10_000))
        far = ledger.reserve("", USER, Amount(10, 1), wanted=Amount(500, 1))
        assert far.held == Amount(500, 1)
        near = ledger.reserve("", USER, Amount(10, 1), wanted=Amount(5000, 1))
        assert near.held == Amount(10, 1)

    def test_an_announced_size_is_refused_early_without_being_held(
        self, ledger: LedgerUnderTest
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000))
        with pytest.raises(LimitExceeded):
            ledger.reserve("", USER, Amount(10, 1), fitting=Amount(1001, 1))
        ledger.reserve("", USER, Amount(10, 1), fitting=Amount(1000, 1))
        assert ledger.usage("server").reserved == Amount(10, 1)

    def test_a_limit_below_what_is_used_refuses_what_adds_and_nothing_else(
        self,
        ledger: LedgerUnderTest,
    ) -> None:
        put(ledger, "a", 600)
        ledger.set_limit("server", Limit(hard_bytes=100))
        with pytest.raises(LimitExceeded):
            put(ledger, "b", 1)
        put(ledger, "a", 500, before=Amount(600, 1))
        put(ledger, "a", 0, before=Amount(500, 1))
        assert ledger.usage("server").used == NOTHING

    def test_limits_and_usage_are_there_after_a_restart(self, make_ledger: MakeLedger) -> None:
        with make_ledger() as ledger:
            ledger.set_limit("server", Limit(hard_bytes=100, soft_objects=7))
            put(ledger, "a", 60)
        with make_ledger() as ledger:
            usage = ledger.usage("server")
            assert usage.limit == Limit(hard_bytes=100, soft_objects=7)
            assert usage.used == Amount(60, 1)
            assert usage.reserved == NOTHING

    def test_a_ledger_can_be_opened_again(self, ledger: LedgerUnderTest) -> None:
        put(ledger, "a", 60)
        ledger.close()
        ledger.open()
        put(ledger, "b", 40)
        assert ledger.usage("server").used == Amount(100, 2)

    def test_what_lingers_is_written_without_anybody_asking(
        self,
        make_ledger: MakeLedger,
    ) -> None:
        raised = threading.Event()

        def note(alarm: Alarm) -> None:
            raised.set()

        with make_ledger("other", on_alarm=note) as other:
            other.set_limit("server", Limit(hard_bytes=100))
            effect = Effect("a", USER, NOTHING, Amount(90, 1))
            other.settle(other.intend("", [effect]))
            assert raised.wait(60)

    def test_all_accounts_are_listed_in_order(self, ledger: LedgerUnderTest) -> None:
        for number in range(1200):
            ledger.set_limit(f"user:{number:04}", Limit(hard_bytes=number))
        listed = [usage.scope for usage in ledger.usages()]
        assert listed == [f"user:{number:04}" for number in range(1200)]


class Alarms(_Ledger):
    def test_each_level_is_raised_once_and_again_only_after_it_was_cleared(
        self, ledger: LedgerUnderTest, alarms: list[Alarm]
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
        self, ledger: LedgerUnderTest, alarms: list[Alarm]
    ) -> None:
        ledger.set_limit("user:alice", Limit(soft_bytes=100, soft_objects=2))
        put(ledger, "a", 100)
        put(ledger, "b", 100)
        assert [(a.scope, a.measure, a.level) for a in alarms] == [
            ("user:alice", Measure.BYTES, None),
            ("user:alice", Measure.OBJECTS, None),
        ]

    def test_a_restart_does_not_raise_it_again(
        self, make_ledger: MakeLedger, alarms: list[Alarm]
    ) -> None:
        for _ in range(2):
            with make_ledger("l", on_alarm=alarms.append) as ledger:
                ledger.set_limit("server", Limit(hard_bytes=100))
                before = ledger.usage("server").used
                put(ledger, "a", 90, before=before)
        assert len(alarms) == 1

    def test_setting_a_limit_raises_it_where_it_is_passed_already(
        self, ledger: LedgerUnderTest, alarms: list[Alarm]
    ) -> None:
        put(ledger, "a", 90)
        ledger.set_limit("server", Limit(hard_bytes=100))
        assert [alarm.level for alarm in alarms] == [0.8]

    def test_a_callback_may_use_the_ledger_and_may_fail(self, make_ledger: MakeLedger) -> None:
        seen = []

        def callback(alarm: Alarm) -> None:
            seen.append(used.usage(alarm.scope).used)
            raise RuntimeError("the pager is down")

        with make_ledger("l", on_alarm=callback) as used:
            used.set_limit("server", Limit(hard_bytes=100))
            put(used, "a", 80)
        assert seen == [Amount(80, 1)]


class Leases(_Limited):
    def test_a_stalled_writer_makes_room_when_its_lease_is_over(
        self, ledger: LedgerUnderTest, clock: Clock
    ) -> None:
        ledger.reserve("", SCOPES, ONE)
        clock.advance(99)
        with pytest.raises(LimitExceeded):
            ledger.reserve("", SCOPES, ONE)
        clock.advance(2)
        ledger.reserve("", SCOPES, ONE)
        assert ledger.usage("server").reserved == ONE

    def test_growing_renews_the_lease(self, ledger: LedgerUnderTest, clock: Clock) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        for size in (61, 62, 63):
            clock.advance(99)
            ledger.grow(reservation, Amount(size, 1))
        assert ledger.usage("server").reserved == Amount(63, 1)

    def test_a_writer_that_wakes_up_is_covered_whole_or_refused(
        self, ledger: LedgerUnderTest, clock: Clock
    ) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        clock.advance(101)
        ledger.usage("server")
        ledger.grow(reservation, Amount(70, 1))
        assert ledger.usage("server").reserved == Amount(70, 1)
        clock.advance(101)
        other = ledger.reserve("", SCOPES, Amount(50, 1))
        with pytest.raises(LimitExceeded):
            ledger.grow(reservation, Amount(71, 1))
        with pytest.raises(LimitExceeded):
            ledger.intend("", [intended(Amount(70, 1))], reservation)
        assert ledger.usage("server").reserved == other.held

    def test_a_writer_may_grow_in_the_moment_its_own_lease_ran_out(
        self, ledger: LedgerUnderTest, clock: Clock
    ) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        clock.advance(101)
        with pytest.raises(LimitExceeded):
            ledger.grow(reservation, Amount(101, 1))
        ledger.grow(reservation, Amount(100, 1))
        assert ledger.usage("server").reserved == Amount(100, 1)
        ledger.release(reservation)
        assert ledger.usage("server").reserved == NOTHING

    def test_a_parked_reservation_outlives_the_process_until_its_own_deadline(
        self, make_ledger: MakeLedger, clock: Clock
    ) -> None:
        with make_ledger("l") as ledger:
            reservation = ledger.reserve("", SCOPES, ONE)
            ledger.park(reservation, 1000)
        clock.advance(999)
        with make_ledger("l") as ledger:
            assert ledger.usage("server").reserved == ONE
            adopted = ledger.adopt(reservation.number, "", SCOPES, Amount(80, 1))
            assert ledger.usage("server").reserved == Amount(80, 1)
            ledger.park(adopted, 1000)
            clock.advance(1001)
            assert ledger.usage("server").reserved == NOTHING

    def test_a_reservation_may_be_parked_from_its_beginning(
        self, make_ledger: MakeLedger, clock: Clock
    ) -> None:
        with make_ledger("l") as ledger:
            reservation = ledger.reserve("", SCOPES, ONE, parked=1000)
        clock.advance(999)
        with make_ledger("l") as ledger:
            assert ledger.usage("server").reserved == ONE
            adopted = ledger.adopt(reservation.number, "", SCOPES, ONE, anew=False)
            ledger.release(adopted)
            with pytest.raises(ReservationEnded):
                ledger.adopt(reservation.number, "", SCOPES, ONE, anew=False)
            assert ledger.usage("server").reserved == NOTHING


class Changes(_Limited):
    def test_settling_twice_counts_once(self, ledger: LedgerUnderTest) -> None:
        change = ledger.intend("", [intended(ONE)])
        ledger.settle(change)
        ledger.settle(change)
        ledger.release(change)
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (ONE, NOTHING)

    def test_freeing_is_idempotent_by_name_and_generation(self, ledger: LedgerUnderTest) -> None:
        ledger.settle(ledger.intend("", [intended(ONE)]))
        first = ledger.intend("", [intended(NOTHING, before=ONE)])
        ledger.free("", "other", first.generation)
        assert ledger.usage("server").used == ONE
        for _ in range(3):
            ledger.free("", "a", first.generation)
        assert ledger.usage("server").used == NOTHING
        ledger.settle(ledger.intend("", [intended(ONE)]))
        ledger.free("", "a", first.generation)  # a late repetition must not free the new item
        assert ledger.usage("server").used == ONE
        second = ledger.intend("", [intended(NOTHING, before=ONE)])
        assert second.generation != first.generation

    def test_numbers_are_not_used_again_after_a_restart(self, make_ledger: MakeLedger) -> None:
        numbers = set()
        for _ in range(3):
            with make_ledger("l") as ledger:
                numbers |= {ledger.reserve("", SCOPES, ONE).number for _ in range(5)}
        assert len(numbers) == 15

    def test_replacing_needs_room_for_the_difference_only(self, ledger: LedgerUnderTest) -> None:
        ledger.settle(ledger.intend("", [intended(Amount(90, 1))]))
        change = ledger.intend("", [intended(Amount(100, 1), before=Amount(90, 1))])
        assert ledger.usage("server").reserved == Amount(10, 0)
        ledger.settle(change)
        assert ledger.usage("server").used == Amount(100, 1)

    def test_a_move_within_a_full_scope_needs_no_room(self, ledger: LedgerUnderTest) -> None:
        full = Amount(100, 1)
        ledger.settle(ledger.intend("", [intended(full)]))
        move = [intended(NOTHING, before=full), intended(full, name="b")]
        ledger.settle(ledger.intend("", move))
        assert ledger.usage("server").used == full

    @pytest.mark.parametrize("happened", [True, False])
    @pytest.mark.parametrize("asked", ["a", "b"])
    def test_both_halves_of_a_dead_move_end_at_once(
        self, ledger: LedgerUnderTest, clock: Clock, happened: bool, asked: str
    ) -> None:
        full = Amount(100, 1)
        ledger.settle(ledger.intend("", [intended(full)]))
        ledger.intend("", [intended(NOTHING, before=full), intended(full, name="b")])
        now = {"a": NOTHING, "b": full} if happened else {"a": full, "b": NOTHING}
        ledger.settle(ledger.intend("", [intended(now[asked], before=now[asked], name=asked)]))
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (full, NOTHING)
        clock.advance(101)
        assert ledger.recover("", lambda name: now[name]).repairs == []

    def test_a_move_that_is_a_copy_and_a_removal_needs_room_for_both(
        self, ledger: LedgerUnderTest
    ) -> None:
        item = Amount(60, 1)
        ledger.settle(ledger.intend("", [intended(item)]))
        move = [intended(NOTHING, before=item), intended(item, name="b")]
        with pytest.raises(LimitExceeded):
            ledger.intend("", move, atomic=False)
        ledger.set_limit("server", Limit(hard_bytes=120))
        ledger.intend("", move, atomic=False)
        # It died between the two: both are there.
        ledger.settle(ledger.intend("", [intended(item, before=item, name="b")]))
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (Amount(120, 2), NOTHING)

    def test_the_next_change_of_a_name_settles_what_was_left_open(
        self, ledger: LedgerUnderTest
    ) -> None:
        ledger.intend("", [intended(ONE)])  # its owner crashed after the link
        change = ledger.intend("", [intended(NOTHING, before=ONE)])
        ledger.settle(change)
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (NOTHING, NOTHING)

    @pytest.mark.parametrize("found", [NOTHING, ONE])
    def test_recover_settles_an_expired_intent_by_what_is_there(
        self, ledger: LedgerUnderTest, clock: Clock, found: Amount
    ) -> None:
        change = ledger.intend("", [intended(ONE)])
        assert ledger.recover("", lambda name: found).repairs == []
        clock.advance(101)
        report = ledger.recover("", lambda name: found)
        assert [(r.name, r.intended, r.found) for r in report.repairs] == [("a", ONE, found)]
        ledger.settle(change)  # too late: it is known already
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (found, NOTHING)

    def test_recover_leaves_a_name_alone_that_somebody_is_changing(
        self, ledger: LedgerUnderTest, clock: Clock
    ) -> None:
        with ledger.changing("", ["a"]):
            change = ledger.intend("", [intended(ONE)])
            clock.advance(101)  # a slow place
            assert ledger.recover("", lambda name: NOTHING).repairs == []
            ledger.settle(change)
        assert ledger.usage("server").used == ONE

    def test_a_folder_changes_while_it_is_listed_and_is_counted_exactly(
        self, make_ledger: MakeLedger
    ) -> None:
        """Nobody waits: the changes are made by the very thread that lists."""
        there = {f"m/{number:03}": Amount(10, 1) for number in range(300)}
        with make_ledger() as one, make_ledger() as other:
            for name in ("m/000", "m/001"):  # the rest came behind the ledger's back
                put(other, name, 10)

            def change(name: str, size: int) -> None:
                put(other, name, size, before=there.pop(name, NOTHING))
                if size:
                    there[name] = Amount(size, 1)

            def changes(start: int, end: int) -> None:
                """Change names of whichever the list has seen some, and some not."""
                for number in range(start, end, 10):
                    change(f"m/{number:03}", 0)
                    change(f"m/{number + 1:03}", 77)
                    change(f"m/{number + 2:03}x", 5)
                    change(f"m/{number + 3:03}", 0)
                    change(f"m/{number + 3:03}", 9)
                    change(f"m/{number + 4:03}x", 5)
                    change(f"m/{number + 4:03}x", 0)

            listed: list[str] = []

            def listing(folder: str) -> Iterator[ItemInfo]:
                listed.append(folder)
                prefix = f"{folder}/" if folder else ""
                below = [name[len(prefix) :] for name in there if name.startswith(prefix)]
                for number, name in enumerate(sorted({each.partition("/")[0] for each in below})):
                    if name not in below:
                        yield ItemInfo(name, True, 0, True)
                    elif (held := there.get(prefix + name)) is not None:
                        yield ItemInfo(name, True, held.bytes, False)
                    if folder == "m" and number in (50, 150):
                        yield ItemInfo("049", True, there["m/049"].bytes, False)  # once more
                    if (folder, number, listed.count("m")) == ("m", 100, 1):
                        changes(0, 200)
                        change("m/new/below/it", 3)
                if folder == "m" and listed.count("m") == 1:
                    changes(5, 60)

            def lookup(name: str) -> Amount:
                if name == "m/011" and there[name].bytes == 77:
                    change(name, 78)  # once more, while what has changed is looked up
                return there.get(name, NOTHING)

            one.reconcile("", listing, lambda _name: USER, lookup=lookup)
            whole = sum(there.values(), NOTHING)
            assert one.usage("server").used == other.usage("user:alice").used == whole
            assert listed == ["", "m", "m/new", "m/new/below"]
            assert there["m/011"] == Amount(78, 1)
            change("m/000", 1)
            again = other.reconcile("", listing, lambda _name: USER)
            assert again.corrections == []
            assert again.counted == sum(there.values(), NOTHING)

    def test_who_has_too_much_to_remember_asks_for_a_count(
        self,
        make_ledger: MakeLedger,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def no_room(_steps: object) -> NoReturn:
            raise LedgerFull("no room")

        there = [ItemInfo(f"{number}", True, 1, False) for number in range(50)]
        monkeypatch.setattr(turns, "MOST_KEPT", 10)
        with make_ledger() as ledger:
            for removed in (10, 15, 5, 15):
                ledger.reconcile("", lambda _folder: there, lambda _name: USER)
                with monkeypatch.context() as full:
                    session: Any = ledger._session
                    full.setattr(session._turns, "_transact", no_room)
                    for _ in range(removed):
                        gone = Effect(there.pop().name, USER, Amount(1, 1), NOTHING)
                        ledger.amend("", [gone])
                assert ledger.needs_reconcile("") == (removed > 10)
                if removed <= 10:
                    assert ledger.usage("server").used == Amount(len(there), len(there))
        assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 2

    def test_what_a_list_has_twice_counts_once(self, make_ledger: MakeLedger) -> None:
        there = dict.fromkeys("abc", ONE)
        with make_ledger() as one, make_ledger() as other:
            for name in there:
                put(other, name, 60)

            def listing(_folder: str) -> Iterator[ItemInfo]:
                yield ItemInfo("a", True, 60, False)
                yield ItemInfo("b", True, 60, False)
                if "c" in there:
                    put(other, "c", 0, before=there.pop("c"))
                    yield ItemInfo("c", True, 60, False)
                yield ItemInfo("a", True, 60, False)

            report = one.reconcile(
                "", listing, lambda _n: USER, lookup=lambda n: there.get(n, NOTHING)
            )
            assert (report.corrections, report.counted) == ([], Amount(120, 2))
            assert one.usage("server").used == Amount(120, 2)

    def test_what_a_list_has_twice_since_a_folder_came_counts_once(
        self, make_ledger: MakeLedger
    ) -> None:
        there = {"a": ONE}
        with make_ledger() as one, make_ledger() as other:
            put(other, "a", 60)

            def listing(folder: str) -> Iterator[ItemInfo]:
                if folder:
                    yield ItemInfo("b", True, 60, False)
                    return
                yield ItemInfo("a", True, 60, False)
                if len(there) == 1:
                    put(other, "new/b", 60)
                    there["new/b"] = ONE
                    yield ItemInfo("new", True, 0, True)
                yield ItemInfo("a", True, 60, False)

            report = one.reconcile("", listing, lambda _name: USER, lookup=there.__getitem__)
            assert (report.corrections, report.counted) == ([], Amount(120, 2))
            assert one.usage("server").used == Amount(120, 2)

    def test_a_change_that_is_under_way_when_its_folder_is_begun_is_counted_once(
        self, make_ledger: MakeLedger
    ) -> None:
        there = {"m/a": ONE, "m/b": ONE}
        with make_ledger() as one, make_ledger() as other:
            for name in there:
                put(other, name, 60)
            going = other.intend("", [Effect("m/a", USER, ONE, NOTHING)])
            coming = other.intend("", [Effect("m/c", USER, NOTHING, ONE)])

            def listing(folder: str) -> Iterator[ItemInfo]:
                if not folder:
                    yield ItemInfo("m", True, 0, True)
                    return
                for name in list(there):
                    yield ItemInfo(name.rpartition("/")[2], True, 60, False)
                if "m/a" in there:
                    del there["m/a"]
                    other.settle(going)
                    there["m/c"] = ONE
                    other.settle(coming)
                    other.usage("server")

            for _ in range(2):
                report = one.reconcile("", listing, lambda _name: USER)
                assert (report.corrections, report.counted) == ([], Amount(120, 2))
            for ledger in (one, other):
                usage = ledger.usage("server")
                assert (usage.used, usage.reserved) == (Amount(120, 2), NOTHING)

    def test_who_was_taken_for_dead_while_he_counted_spoils_nothing(
        self, make_ledger: MakeLedger
    ) -> None:
        with make_ledger() as one, make_ledger() as other:
            put(one, "a", 60)
            there = {"a": ONE, "b": ONE}  # one more than the ledger knows

            def listing(_folder: str) -> Iterator[ItemInfo]:
                for name in list(there):
                    yield ItemInfo(name, True, 60, False)
                session = one._session.run(lambda books: books.session)
                other._session.run(lambda books: books.bury(session))

            with pytest.raises(LedgerError) as caught:
                one.reconcile("", listing, lambda _name: USER)
            assert caught.value.retryable
            assert other.usage("server").used == ONE
            put(other, "c", 60)
            there["c"] = ONE
            listed = lambda _folder: [ItemInfo(n, True, 60, False) for n in there]  # noqa: E731
            assert other.reconcile("", listed, lambda _name: USER).counted == Amount(180, 3)
            assert other.usage("server").used == Amount(180, 3)


class Claims(_Ledger):
    """Names claimed without an account: `ledger.claiming`."""

    def test_one_has_a_name_at_a_time(self, ledger: LedgerUnderTest) -> None:
        order: list[str] = []

        def second() -> None:
            with ledger.claiming("place", ["b", "a"], patience=60) as died:
                order.append(f"second, after a death: {died}")

        with ledger.claiming("place", ["a"], patience=60) as died:
            assert not died
            thread = threading.Thread(target=second)
            thread.start()
            with ledger.claiming("elsewhere", ["a"], patience=60):
                pass
            thread.join(0.1)
            order.append("first")
        thread.join(60)
        assert order == ["first", "second, after a death: False"]

    def test_who_waits_in_vain_is_told(self, ledger: LedgerUnderTest) -> None:
        told: list[BaseException] = []

        def second() -> None:
            try:
                with ledger.claiming("place", ["a"], patience=0.2):
                    pass
            except NameBusy as error:
                told.append(error)

        with ledger.claiming("place", ["a"], patience=60):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join(60)
        assert [getattr(error, "retryable", None) for error in told] == [True]
        with ledger.claiming("place", ["a"], patience=60) as died:
            assert not died

    def test_who_comes_after_a_death_is_told_once(
        self, ledger: LedgerUnderTest, clock: Clock
    ) -> None:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                claim = ledger.claiming("place", ["a", "b"], patience=60)
                claim.__enter__()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        self.died(ledger, clock)
        with ledger.claiming("place", ["a"], patience=60) as died:
            assert died
        with ledger.claiming("place", ["a"], patience=60) as died:
            assert not died
        left = ledger.left_open("place")
        assert [name for _, name in left] == ["b"]
        ledger.forget_left("place", left)
        assert ledger.left_open("place") == []
        with ledger.claiming("place", ["b"], patience=60) as died:
            assert not died

    def died(self, ledger: LedgerUnderTest, clock: Clock) -> None:
        """See that all know that the child has died, where that takes time."""


class Processes(_Limited):
    def test_a_fork_leaves_the_parents_reservations_to_the_parent(
        self, ledger: LedgerUnderTest
    ) -> None:
        ledger.reserve("", SCOPES, Amount(10, 1))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                ledger.reserve("", SCOPES, Amount(20, 1))
                if ledger.usage("server").reserved == Amount(30, 2):
                    ledger.settle(ledger.intend("", [intended(Amount(5, 1))]))
                    ledger.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (Amount(5, 1), Amount(10, 1))

    def test_what_a_thread_posts_during_a_fork_is_not_left_lying(
        self, ledger: LedgerUnderTest
    ) -> None:
        ledger.reserve("", SCOPES, Amount(10, 1))
        session: Any = ledger._session
        done = threading.Event()
        session.before_fork()
        try:
            session.post(lambda _: done.set())
        finally:
            session.after_fork_in_parent()
        assert done.wait(60)

    def test_a_closed_ledger_says_so(self, make_ledger: MakeLedger) -> None:
        ledger = make_ledger("l")
        with pytest.raises(LedgerError, match="not open"):
            ledger.usage("server")
        ledger.open()
        ledger.close()
        with pytest.raises(LedgerError, match="not open"):
            ledger.reserve("", SCOPES, ONE)
