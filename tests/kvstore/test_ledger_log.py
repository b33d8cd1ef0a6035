"""The log beside a ledger's SQLite file: whatever becomes of its writers, the accounts are right.

Two ledgers on one file are to each other as two processes are. One from `with dying(...)` never
closes: its locks go, its session stays on record.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import (
    NOTHING,
    Amount,
    Effect,
    LedgerError,
    Limit,
    LimitExceeded,
    SQLiteLedger,
)
from backupgw.kvstore.ledger.sqlite_log import SIZE, START, Log
from backupgw.kvstore.ledger.sqlite_session import SQLiteSession

SCOPES = ("server", 'user:álice "x"')
ONE = Amount(60, 1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def put(ledger: SQLiteLedger, name: str, amount: Amount = ONE, before: Amount = NOTHING) -> None:
    with ledger.changing("", [name]):
        ledger.settle(ledger.intend("", [Effect(name, SCOPES, before, amount)]))
    ledger.usage("server")  # a settle that only adds may linger


def used(ledger: SQLiteLedger) -> set[Amount]:
    return {ledger.usage(scope).used for scope in SCOPES}


def in_file(path: str) -> int:
    """The bytes in use that the SQLite file itself knows of."""
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("SELECT ifnull(sum(used_bytes), 0) FROM scopes").fetchone()
    return int(size)


@contextmanager
def dying(path: str) -> Iterator[SQLiteLedger]:
    """A ledger whose process ends without another word."""
    ledger = SQLiteLedger(path)
    ledger.open()
    yield ledger
    session = ledger._session
    assert isinstance(session, SQLiteSession)
    session._let_go()
    session._turns.end()  # its thread ends too


class TestRecords:
    def test_another_process_sees_at_once_what_is_in_the_log_alone(self, path: str) -> None:
        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            for number in range(20):
                put(one, f"a{number}")
                put(other, f"b{number}", Amount(5, 1))
            assert used(one) == used(other) == {Amount(20 * 65, 40)}
            assert in_file(path) == 0, "nothing was logged: this shows nothing"
        assert in_file(path) == 2 * 20 * 65

    def test_a_refusal_counts_what_another_process_has_reserved(self, path: str) -> None:
        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            one.set_limit("server", Limit(hard_bytes=100))
            one.reserve("", SCOPES, Amount(60, 1))
            with pytest.raises(LimitExceeded) as caught:
                other.reserve("", SCOPES, Amount(41, 1))
            assert caught.value.reserved == 60
            other.reserve("", SCOPES, Amount(40, 1))

    def test_a_limit_set_by_another_process_holds_from_the_next_write_on(self, path: str) -> None:
        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            put(one, "a")
            other.set_limit("server", Limit(hard_bytes=100))
            with pytest.raises(LimitExceeded):
                put(one, "b")

    def test_a_full_log_goes_into_the_file_and_begins_anew(self, path: str) -> None:
        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            kept = one.reserve("", SCOPES, Amount(7, 1))
            count = 3 * SIZE // 1000
            for number in range(count):
                put(one if number % 3 else other, f"{number:0500}", Amount(1, 1))
            assert in_file(path) > 0, "the log was never full: this shows nothing"
            assert used(one) == used(other) == {Amount(count, count)}
            assert other.usage("server").reserved == Amount(7, 1)
            one.release(kept)
            assert other.usage("server").reserved == NOTHING
            items = [ItemInfo(f"{number:0500}", True, 1, False) for number in range(count)]
            report = one.reconcile("", lambda folder: items, lambda name: SCOPES)
            assert report.corrections == []

    def test_a_record_longer_than_the_log_goes_into_the_file(self, path: str) -> None:
        with SQLiteLedger(path) as ledger:
            names = [f"{number:03}{'x' * 3000}" for number in range(SIZE // 3000 + 1)]
            ledger.settle(ledger.intend("", [Effect(n, SCOPES, NOTHING, ONE) for n in names]))
            assert used(ledger) == {Amount(60 * len(names), len(names))}

    def test_the_log_is_the_owners_alone(self, path: str) -> None:
        with SQLiteLedger(path):
            assert os.stat(f"{path}-log").st_mode & 0o077 == 0


class TestDeath:
    def test_what_a_dead_process_logged_is_there(self, path: str) -> None:
        with SQLiteLedger(path) as other:
            other.reconcile("", lambda folder: [], lambda name: SCOPES)
        with dying(path) as ledger:
            put(ledger, "a")
            ledger.intend("", [Effect("b", SCOPES, NOTHING, ONE)])
            ledger.reserve("", SCOPES, Amount(500, 1))
        assert in_file(path) == 0, "nothing was logged: this shows nothing"
        with SQLiteLedger(path) as other:
            assert not other.needs_reconcile("")
            assert other.usage("server").reserved == ONE
            report = other.recover("", lambda name: ONE)
            assert [repair.name for repair in report.repairs] == ["b"]
            assert used(other) == {ONE + ONE}
            assert other.usage("server").reserved == NOTHING

    @pytest.mark.parametrize("torn", [1, 17, 40])
    def test_a_record_that_is_not_whole_never_happened(self, path: str, torn: int) -> None:
        append = Log.append

        def tear(log: Log, tag: bytes, start: int, record: bytes) -> None:
            end = append(log, tag, start, record)
            assert end is not None
            log.map[end - torn : end] = bytes(torn)
            raise OSError(28, "No space left on device")

        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            put(one, "a")
            with patch.object(Log, "append", tear), pytest.raises(LedgerError, match="no room"):
                one.intend("", [Effect("b", SCOPES, NOTHING, ONE)])
            assert other.usage("server").reserved == NOTHING
            put(other, "c")
            assert used(one) == used(other) == {ONE + ONE}

    @pytest.mark.parametrize("committed", [True, False])
    def test_a_death_around_the_commit_of_the_file_loses_and_doubles_nothing(
        self, path: str, committed: bool
    ) -> None:
        """The log's header is not what the file says; only the file knows what happened."""

        def fail(log: Log, tag: bytes) -> None:
            raise OSError(5, "Input/output error")

        announce = Log.announce

        def announce_and_fail(log: Log, tag: bytes, following: bytes) -> None:
            announce(log, tag, following)
            raise OSError(5, "Input/output error")

        with SQLiteLedger(path) as one, SQLiteLedger(path) as other:
            one.reconcile("", lambda folder: [], lambda name: SCOPES)
            put(one, "a")
            put(other, "b")
            assert used(other) == used(one) == {ONE + ONE}
            if committed:
                with patch.object(Log, "begin", fail):
                    one.set_limit("server", Limit(hard_bytes=130))
            else:
                with patch.object(Log, "announce", announce_and_fail), pytest.raises(LedgerError):
                    one.set_limit("server", Limit(hard_bytes=130))
            assert used(other) == {ONE + ONE}
            if committed:
                with pytest.raises(LimitExceeded):
                    put(other, "c")
            else:
                put(other, "c")
            assert used(one) == used(other) == {Amount(120, 2) if committed else Amount(180, 3)}
            assert not one.needs_reconcile("")


class TestLoss:
    def test_a_lost_log_asks_for_a_count(self, path: str, caplog: pytest.LogCaptureFixture) -> None:
        with SQLiteLedger(path) as ledger:
            ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
        with dying(path) as ledger:
            put(ledger, "a")
        os.unlink(f"{path}-log")
        with caplog.at_level(logging.WARNING), SQLiteLedger(path) as other:
            assert other.needs_reconcile("")
        assert "lost" in caplog.text

    def test_a_log_of_another_file_is_not_believed(self, path: str, tmp_path: Path) -> None:
        with dying(path) as ledger:
            put(ledger, "a")
        for name in os.listdir(tmp_path):
            if name != "ledger-log":
                os.unlink(tmp_path / name)
        with SQLiteLedger(path) as other:
            assert used(other) == {NOTHING}
            put(other, "b")
            assert used(other) == {ONE}

    @pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
    def test_a_file_of_an_earlier_version_goes_on(self, path: str, version: int) -> None:
        with SQLiteLedger(path) as ledger:
            put(ledger, "a")
            left_open = ledger.intend("", [Effect("b", SCOPES, NOTHING, ONE)])
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("ALTER TABLE places DROP COLUMN begun")
            db.execute("ALTER TABLE places DROP COLUMN finished")
            if version < 7:
                db.execute("ALTER TABLE uncounted DROP COLUMN lister")
                db.execute("DROP TABLE noted")
            if version < 6:
                db.execute("ALTER TABLE held DROP COLUMN file")
            if version == 1:
                db.execute("DROP TABLE log")
                os.unlink(f"{path}-log")
            db.execute(f"PRAGMA user_version = {version}")
        with SQLiteLedger(path) as ledger:
            report = ledger.recover("", lambda _name: ONE)
            assert [repair.generation for repair in report.repairs] == [left_open.generation]
            put(ledger, "c")
            assert used(ledger) == {Amount(3 * ONE.bytes, 3)}
            there = [ItemInfo(name, True, 60, False) for name in "abc"]
            report = ledger.reconcile("", lambda _folder: there, lambda _name: SCOPES)
            assert (report.corrections, ledger.needs_reconcile("")) == ([], False)
        with closing(sqlite3.connect(path)) as db:
            # Who knows only the earlier one could not read the log.
            assert db.execute("PRAGMA user_version").fetchone() == (8,)

    @pytest.mark.parametrize("written", [True, False])
    def test_who_has_it_open_while_a_newer_version_changes_it_is_told_to_restart(
        self, path: str, written: bool
    ) -> None:
        with SQLiteLedger(path) as ledger:
            put(ledger, "a")
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA user_version = 99")
            if written:
                log = Log(f"{path}-log")
                tag, _ = log.tags()
                *_, end = START, *(end for _, end in log.read(tag, START))
                log.append(tag, end, b"!what only the newer one knows")
                log.close()
            change: Callable[[], object] = partial(put, ledger, "b")
            if not written:  # then its next transaction of SQLite finds out
                change = partial(ledger.reconcile, "", lambda _: iter(()), lambda _: SCOPES)
            with pytest.raises(LedgerError, match=r"version 99 .*restart this process"):
                change()
