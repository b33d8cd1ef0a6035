"""Whoever dies, stalls or says a thing twice does not distort the accounts."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.ledger import (
    NOTHING,
    Amount,
    Effect,
    LedgerError,
    LedgerFull,
    Limit,
    LimitExceeded,
    SQLiteLedger,
)

SCOPES = ("server",)
ONE = Amount(60, 1)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[SQLiteLedger]:
    with SQLiteLedger(str(tmp_path / "ledger"), lease=100, clock=clock) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=100))
        yield ledger


def intended(after: Amount, before: Amount = NOTHING, name: str = "a") -> Effect:
    return Effect(name, SCOPES, before, after)


class TestLeases:
    def test_a_stalled_writer_makes_room_when_its_lease_is_over(
        self, ledger: SQLiteLedger, clock: Clock
    ) -> None:
        ledger.reserve("", SCOPES, ONE)
        clock.now += 99
        with pytest.raises(LimitExceeded):
            ledger.reserve("", SCOPES, ONE)
        clock.now += 2
        ledger.reserve("", SCOPES, ONE)
        assert ledger.usage("server").reserved == ONE

    def test_growing_renews_the_lease(self, ledger: SQLiteLedger, clock: Clock) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        for size in (61, 62, 63):
            clock.now += 99
            ledger.grow(reservation, Amount(size, 1))
        assert ledger.usage("server").reserved == Amount(63, 1)

    def test_a_writer_that_wakes_up_is_covered_whole_or_refused(
        self, ledger: SQLiteLedger, clock: Clock
    ) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        clock.now += 101
        ledger.usage("server")
        ledger.grow(reservation, Amount(70, 1))
        assert ledger.usage("server").reserved == Amount(70, 1)
        clock.now += 101
        other = ledger.reserve("", SCOPES, Amount(50, 1))
        with pytest.raises(LimitExceeded):
            ledger.grow(reservation, Amount(71, 1))
        with pytest.raises(LimitExceeded):
            ledger.intend("", [intended(Amount(70, 1))], reservation)
        assert ledger.usage("server").reserved == other.held

    def test_a_writer_may_grow_in_the_moment_its_own_lease_ran_out(
        self, ledger: SQLiteLedger, clock: Clock
    ) -> None:
        reservation = ledger.reserve("", SCOPES, ONE)
        clock.now += 101
        with pytest.raises(LimitExceeded):
            ledger.grow(reservation, Amount(101, 1))
        ledger.grow(reservation, Amount(100, 1))
        assert ledger.usage("server").reserved == Amount(100, 1)
        ledger.release(reservation)
        assert ledger.usage("server").reserved == NOTHING

    def test_a_parked_reservation_outlives_the_process_until_its_own_deadline(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        path = str(tmp_path / "l")
        with SQLiteLedger(path, clock=clock) as ledger:
            reservation = ledger.reserve("", SCOPES, ONE)
            ledger.park(reservation, 1000)
        clock.now += 999
        with SQLiteLedger(path, clock=clock) as ledger:
            assert ledger.usage("server").reserved == ONE
            adopted = ledger.adopt(reservation.number, "", SCOPES, Amount(80, 1))
            assert ledger.usage("server").reserved == Amount(80, 1)
            ledger.park(adopted, 1000)
            clock.now += 1001
            assert ledger.usage("server").reserved == NOTHING


class TestChanges:
    def test_settling_twice_counts_once(self, ledger: SQLiteLedger) -> None:
        change = ledger.intend("", [intended(ONE)])
        ledger.settle(change)
        ledger.settle(change)
        ledger.release(change)
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (ONE, NOTHING)

    def test_freeing_is_idempotent_by_name_and_generation(self, ledger: SQLiteLedger) -> None:
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

    def test_numbers_are_not_used_again_after_a_restart(self, tmp_path: Path) -> None:
        numbers = set()
        for _ in range(3):
            with SQLiteLedger(str(tmp_path / "l")) as ledger:
                numbers |= {ledger.reserve("", SCOPES, ONE).number for _ in range(5)}
        assert len(numbers) == 15

    def test_replacing_needs_room_for_the_difference_only(self, ledger: SQLiteLedger) -> None:
        ledger.settle(ledger.intend("", [intended(Amount(90, 1))]))
        change = ledger.intend("", [intended(Amount(100, 1), before=Amount(90, 1))])
        assert ledger.usage("server").reserved == Amount(10, 0)
        ledger.settle(change)
        assert ledger.usage("server").used == Amount(100, 1)

    def test_a_move_within_a_full_scope_needs_no_room(self, ledger: SQLiteLedger) -> None:
        full = Amount(100, 1)
        ledger.settle(ledger.intend("", [intended(full)]))
        move = [intended(NOTHING, before=full), intended(full, name="b")]
        ledger.settle(ledger.intend("", move))
        assert ledger.usage("server").used == full

    @pytest.mark.parametrize("happened", [True, False])
    @pytest.mark.parametrize("asked", ["a", "b"])
    def test_both_halves_of_a_dead_move_end_at_once(
        self, ledger: SQLiteLedger, clock: Clock, happened: bool, asked: str
    ) -> None:
        full = Amount(100, 1)
        ledger.settle(ledger.intend("", [intended(full)]))
        ledger.intend("", [intended(NOTHING, before=full), intended(full, name="b")])
        now = {"a": NOTHING, "b": full} if happened else {"a": full, "b": NOTHING}
        ledger.settle(ledger.intend("", [intended(now[asked], before=now[asked], name=asked)]))
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (full, NOTHING)
        clock.now += 101
        assert ledger.recover("", lambda name: now[name]).repairs == []

    def test_a_move_that_is_a_copy_and_a_removal_needs_room_for_both(
        self, ledger: SQLiteLedger
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
        self, ledger: SQLiteLedger
    ) -> None:
        ledger.intend("", [intended(ONE)])  # its owner crashed after the link
        change = ledger.intend("", [intended(NOTHING, before=ONE)])
        ledger.settle(change)
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (NOTHING, NOTHING)

    @pytest.mark.parametrize("found", [NOTHING, ONE])
    def test_recover_settles_an_expired_intent_by_what_is_there(
        self, ledger: SQLiteLedger, clock: Clock, found: Amount
    ) -> None:
        change = ledger.intend("", [intended(ONE)])
        assert ledger.recover("", lambda name: found).repairs == []
        clock.now += 101
        report = ledger.recover("", lambda name: found)
        assert [(r.name, r.intended, r.found) for r in report.repairs] == [("a", ONE, found)]
        ledger.settle(change)  # too late: it is known already
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (found, NOTHING)

    def test_recover_leaves_a_name_alone_that_somebody_is_changing(
        self, ledger: SQLiteLedger, clock: Clock
    ) -> None:
        with ledger.changing("", ["a"]):
            change = ledger.intend("", [intended(ONE)])
            clock.now += 101  # a slow place
            assert ledger.recover("", lambda name: NOTHING).repairs == []
            ledger.settle(change)
        assert ledger.usage("server").used == ONE

    def test_another_process_settles_a_killed_ones_intents_at_once(
        self, ledger: SQLiteLedger, tmp_path: Path
    ) -> None:
        script = """
import os, signal, sys
from backupgw.kvstore.ledger import *
ledger = SQLiteLedger(sys.argv[1])
ledger.open()
ledger.intend("", [Effect("a", ("server",), NOTHING, Amount(60, 1))])
ledger.reserve("", ("server",), Amount(30, 0))
os.kill(os.getpid(), signal.SIGKILL)
"""
        subprocess.run([sys.executable, "-c", script, ledger.path], check=False, timeout=60)
        report = ledger.recover("", lambda name: ONE)
        assert report.released == 1
        assert [repair.found for repair in report.repairs] == [ONE]
        usage = ledger.usage("server")
        assert (usage.used, usage.reserved) == (ONE, NOTHING)


def fill(path: Path) -> None:
    """Write until the disk has no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            continue


def reserve_without_end(ledger: SQLiteLedger) -> None:
    for number in range(10_000):
        ledger.reserve("", (f"scope {number}",), ONE)


class TestFailures:
    def test_a_power_loss_asks_for_a_count(self, tmp_path: Path) -> None:
        path = str(tmp_path / "l")
        with SQLiteLedger(path) as ledger:
            assert ledger.needs_reconcile("")
            ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
            assert not ledger.needs_reconcile("")
        with SQLiteLedger(path) as ledger:
            assert not ledger.needs_reconcile("")
        with sqlite3.connect(path) as db:  # as a session of an earlier boot leaves it
            db.execute("INSERT INTO sessions (boot) VALUES ('another')")
        db.close()
        with SQLiteLedger(path) as ledger:
            assert ledger.needs_reconcile("")

    def test_a_fork_leaves_the_parents_reservations_to_the_parent(
        self, ledger: SQLiteLedger
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

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "l"
        path.write_bytes(b"not a database at all" * 100)
        with pytest.raises(LedgerError, match="damaged"):
            SQLiteLedger(str(path)).open()

    def test_a_file_of_another_version_is_refused(self, tmp_path: Path) -> None:
        path = str(tmp_path / "l")
        with SQLiteLedger(path):
            pass
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        with pytest.raises(LedgerError, match="99"):
            SQLiteLedger(path).open()

    def test_a_closed_ledger_says_so(self, tmp_path: Path) -> None:
        ledger = SQLiteLedger(str(tmp_path / "l"))
        with pytest.raises(LedgerError, match="not open"):
            ledger.usage("server")
        ledger.open()
        ledger.close()
        with pytest.raises(LedgerError, match="not open"):
            ledger.reserve("", SCOPES, ONE)

    def test_the_file_is_the_owners_alone(self, ledger: SQLiteLedger) -> None:
        for suffix in ("", "-locks", "-wal"):
            assert os.stat(ledger.path + suffix).st_mode & 0o077 == 0

    @pytest.mark.root("mount", "umount")
    def test_a_full_disk_is_a_clear_error_and_loses_nothing_that_happened(
        self, tmp_path: Path
    ) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
        subprocess.run(mount, check=True, timeout=60)
        try:
            with SQLiteLedger(str(disk / "l")) as ledger:
                open_change = ledger.intend("", [intended(ONE)])
                filler = disk / "filler"
                fill(filler)
                with pytest.raises(LedgerFull, match="no room"):
                    reserve_without_end(ledger)
                ledger.settle(open_change)
                ledger.amend("", "b", SCOPES, Amount(7, 1))
                filler.unlink()
                assert ledger.usage("server").used == ONE + Amount(7, 1)
        finally:
            subprocess.run(["umount", str(disk)], check=True, timeout=60)
