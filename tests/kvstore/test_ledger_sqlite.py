"""The contract of a ledger on the SQLite one, and what is that one's alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore import ledger_contract
from tests.kvstore.ledger_contract import ONE, SCOPES, MakeLedger, intended

from backupgw.kvstore.ledger import NOTHING, Amount, LedgerError, LedgerFull, Limit, SQLiteLedger
from backupgw.kvstore.ledger.locks import ByteLocks


class Clock:
    """Seconds since the epoch, for a ledger."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_ledger(tmp_path: Path, clock: Clock) -> MakeLedger:
    def make(name: str = "ledger", **options: Any) -> SQLiteLedger:
        return SQLiteLedger(str(tmp_path / "state" / name), clock=clock, **options)

    return make


class TestAccounts(ledger_contract.Accounts):
    pass


class TestAlarms(ledger_contract.Alarms):
    pass


class TestLeases(ledger_contract.Leases):
    pass


class TestChanges(ledger_contract.Changes):
    pass


class TestClaims(ledger_contract.Claims):
    pass


class TestProcesses(ledger_contract.Processes):
    pass


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[SQLiteLedger]:
    with SQLiteLedger(str(tmp_path / "ledger"), lease=100, clock=clock) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=100))
        yield ledger


def fill(path: Path) -> None:
    """Write until the disk has no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            continue


def reserve_without_end(ledger: SQLiteLedger) -> None:
    for number in range(10_000):
        ledger.reserve("", (f"scope {number}",), ONE)


class TestFailures:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_one_that_cannot_get_ready_for_a_fork_stops_neither_it_nor_the_other_ledgers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writing = ByteLocks.writing

        def fail(locks: ByteLocks) -> contextlib.AbstractContextManager[None]:
            if failing and "broken" in locks._path:
                raise LedgerError("the ledger's locks: Input/output error")
            return writing(locks)

        failing = False
        monkeypatch.setattr(ByteLocks, "writing", fail)
        with contextlib.ExitStack() as stack:
            ledgers = [
                stack.enter_context(SQLiteLedger(str(tmp_path / name)))
                for name in ("first", "broken", "last")
            ]
            for ledger in ledgers:
                ledger.reserve("", SCOPES, ONE)
            failing = True
            for count in range(3):
                child = os.fork()
                if child == 0:
                    status = 1
                    failing = False
                    try:
                        for ledger in ledgers:
                            ledger.settle(ledger.intend("", [intended(Amount(count + 1, 1))]))
                            assert ledger.usage("server").reserved == ONE
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
            failing = False
            for ledger in ledgers:
                ledger.reserve("", SCOPES, ONE)
                usage = ledger.usage("server")
                assert (usage.used, usage.reserved) == (Amount(6, 3), ONE + ONE)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_child_that_cannot_open_the_locks_uses_no_other_file_for_them(
        self, ledger: SQLiteLedger, tmp_path: Path
    ) -> None:
        ledger.reserve("", SCOPES, Amount(1, 1))
        locks = Path(f"{ledger.path}-locks")
        aside = locks.rename(tmp_path / "aside")
        locks.mkdir()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for number in range(20):  # the parent's descriptors are among these
                    os.open(tmp_path / f"file {number}", os.O_RDWR | os.O_CREAT)
                for _ in range(2):
                    with pytest.raises(LedgerError, match="locks: Is a directory"):
                        ledger.reserve("", SCOPES, Amount(1, 1))
                locks.rmdir()
                aside.rename(locks)
                ledger.reserve("", SCOPES, Amount(1, 1))
                ledger.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert ledger.usage("server").reserved == Amount(1, 1)

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
                ledger.reconcile("", lambda _folder: [], lambda _name: SCOPES)
                ledger.settle(ledger.intend("", [intended(ONE, name="c")]))
                open_change = ledger.intend("", [intended(ONE)])
                filler = disk / "filler"
                fill(filler)
                with pytest.raises(LedgerFull, match="no room"):
                    reserve_without_end(ledger)
                ledger.settle(open_change)
                ledger.amend("", [intended(Amount(7, 1), name="b")])
                ledger.amend("", [intended(NOTHING, before=ONE, name="c")])
                filler.unlink()
                assert ledger.usage("server").used == ONE + Amount(7, 1)
                assert not ledger.needs_reconcile("")
        finally:
            subprocess.run(["umount", str(disk)], check=True, timeout=60)
