"""Accounts stay true when answers are lost, the ledger fails, or somebody changes the place behind
its back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendConnectionError
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import NOTHING, Amount, LedgerError, LedgerFull, Limit, SQLiteLedger


class _Flaky(Layer):
    """Loses the answer of the next operation, after or before the place has carried it out."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.lose: str | None = None

    def open_writer(self, name: str, **options: Any) -> Any:
        writer = self.inner.open_writer(name, **options)
        commit = writer.commit
        writer.commit = lambda: self._maybe(commit)  # type: ignore[method-assign]
        return writer

    def delete(self, name: str) -> None:
        self._maybe(lambda: self.inner.delete(name))

    def _maybe(self, work: Callable[[], None]) -> None:
        lose, self.lose = self.lose, None
        if lose != "before":
            work()
        if lose is not None:
            raise BackendConnectionError(f"lost {lose}")


class TestFaults:
    @pytest.fixture
    def flaky(self, tmp_path: Path) -> _Flaky:
        quota_place.make(tmp_path)
        return _Flaky(PosixFS(str(tmp_path / "store"), durability="fast"))

    @pytest.mark.parametrize("lose", ["before", "after"])
    def test_a_lost_answer_is_settled_by_looking(
        self, ledger: SQLiteLedger, flaky: _Flaky, check: Callable[[], None], lose: str
    ) -> None:
        with QuotaLayer(flaky, ledger, quota_place.scopes) as place:
            for size in (100, 30, 200):
                flaky.lose = lose
                with pytest.raises(BackendConnectionError):
                    place.store("alice/main/a", b"x" * size)
                check()
            place.store("alice/main/a", b"x")
            flaky.lose = lose
            with pytest.raises(BackendConnectionError):
                place.delete("alice/main/a")
            check()

    def test_a_ledger_without_room_does_not_keep_anybody_from_deleting(
        self, place: QuotaLayer, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.store("alice/main/a", b"x" * 100)

        def full(*_: object, **__: object) -> None:
            raise LedgerFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "intend", full)
            patch.setattr(ledger, "begin_new", full)
            with pytest.raises(LedgerError):
                place.store("alice/main/b", b"x")
            place.delete("alice/main/a")
        assert ledger.usage("server").used == NOTHING

    def test_what_changed_behind_its_back_is_corrected_with_a_report(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        place.store("alice/main/a", b"x" * 100)
        place.store("bob/main/b", b"x" * 50)
        place.inner.delete("alice/main/a")
        place.inner.store("carol/x/y/z", b"x" * 7)
        report = place.reconcile()
        assert {c.scope: (c.recorded, c.found) for c in report.corrections} == {
            "server": (Amount(150, 2), Amount(57, 2)),
            "user:alice": (Amount(100, 1), NOTHING),
            "repo:alice/main": (Amount(100, 1), NOTHING),
            "user:carol": (NOTHING, Amount(7, 1)),
            "repo:carol/x": (NOTHING, Amount(7, 1)),
        }
        assert report.counted == Amount(57, 2)
        check()
        assert place.reconcile().corrections == []

    def test_a_failed_count_corrects_nothing(
        self, place: QuotaLayer, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.store("alice/main/a", b"x" * 100)
        place.inner.store("alice/main/b", b"x" * 100)
        real = place.inner.list

        def breaks(folder: str) -> Any:
            if folder == "alice/main":
                raise BackendConnectionError("gone")
            return real(folder)

        with monkeypatch.context() as patch:
            patch.setattr(place.inner, "list", breaks)
            with pytest.raises(BackendConnectionError):
                place.reconcile()
        assert ledger.usage("server").used == Amount(100, 1)
        place.store("alice/main/c", b"x")
        place.reconcile()
        assert ledger.usage("server").used == Amount(201, 3)

    def test_a_count_during_traffic_is_exact(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        for number in range(200):
            place.inner.store(f"alice/main/{number % 10}/{number}", b"x" * number)
        stop = threading.Event()

        def traffic(worker: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                name = f"alice/main/{number % 12}/{worker}-{number % 30}"
                place.store(name, b"x" * (number % 1000))
                if number % 3 == 0:
                    place.move(name, f"user{worker}/{number % 5}/new/{number % 50}")

        threads = [threading.Thread(target=traffic, args=(worker,)) for worker in range(4)]
        ledger.set_limit("server", Limit())
        for thread in threads:
            thread.start()
        try:
            reports = [place.reconcile() for _ in range(5)]
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert reports[0].corrections
        assert [report.corrections for report in reports[1:]] == [[]] * 4
        check()
