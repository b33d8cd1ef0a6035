"""What every ledger keeps of changes, of names claimed and after forks, as `ledger_contract`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from tests.kvstore.ledger_contract import (
    ONE,
    SCOPES,
    USER,
    Clock,
    LedgerContract,
    LedgerUnderTest,
    LimitedContract,
    MakeLedger,
    intended,
    put,
)

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import NOTHING, Amount, LedgerError, Limit, LimitExceeded, NameBusy


class Changes(LimitedContract):
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

    def test_who_counts_a_folder_sees_that_changes_wait_for_it(
        self, make_ledger: MakeLedger
    ) -> None:
        seen: list[tuple[str, bool]] = []

        def listing(folder: str) -> Iterator[ItemInfo]:
            seen.append((folder, one.delays("")))
            if folder == "a":
                thread = threading.Thread(target=put, args=(other, "a/b/c", 60))
                thread.start()
                end = time.monotonic() + 60
                while not one.delays("") and time.monotonic() < end:
                    pass
                seen.append((folder, one.delays("")))
                waiting.append(thread)
            elif not folder:
                yield ItemInfo("a", True, 0, True)
                yield ItemInfo("z", True, 0, True)

        waiting: list[threading.Thread] = []
        with make_ledger() as one, make_ledger() as other:
            put(other, "z", 1)
            one.reconcile("", listing, lambda _name: USER)
            waiting[0].join(60)
            assert one.usage("server").used == ONE
            assert not one.delays("")
        assert sorted(seen) == [("", False), ("a", False), ("a", True), ("z", False)]


class Claims(LedgerContract):
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


class Processes(LimitedContract):
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

    def test_a_closed_ledger_says_so(self, make_ledger: MakeLedger) -> None:
        ledger = make_ledger("l")
        with pytest.raises(LedgerError, match="not open"):
            ledger.usage("server")
        ledger.open()
        ledger.close()
        with pytest.raises(LedgerError, match="not open"):
            ledger.reserve("", SCOPES, ONE)
