"""A place under quota: every way in and out is accounted, to the byte."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.base import Quota
from backupgw.kvstore.backends.errors import (
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    QuotaExceeded,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.quota_changes import EXEMPT_SIZE
from backupgw.kvstore.layers.quota_writer import STEP, UNRESERVED
from backupgw.kvstore.ledger import Amount, Limit, LimitExceeded, SQLiteLedger
from backupgw.kvstore.names import InvalidName


class TestAccounting:
    def test_every_operation(self, place: QuotaLayer, check: Callable[[], None]) -> None:
        place.store("alice/main/data/a", b"x" * 1000)
        check()
        place.store("alice/main/data/a", b"x" * 400)
        check()
        place.store("alice/main/data/a", b"x" * 1700)
        check()
        place.copy("alice/main/data/a", "bob/main/data/b")
        check()
        place.move("alice/main/data/a", "alice/other/data/c")
        check()
        place.move("alice/other/data/c", "bob/main/data/b")
        check()
        place.move("bob/main/data/b", "bob/main/data/b")
        check()
        place.defrag([("bob/main/data/b", 0, 500), ("bob/main/data/b", 100, 7)], "alice/d/d")
        check()
        place.quarantine("alice/d/d")
        check()
        place.delete("bob/main/data/b")
        check()
        assert place.quota() == Quota(quota_place.ROOM, 0)

    def test_an_empty_item_is_an_object(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        place.store("alice/main/empty", b"")
        assert ledger.usage("server").used == Amount(0, 1)
        place.delete("alice/main/empty")
        check()

    def test_what_does_not_happen_is_not_counted(
        self, place: QuotaLayer, check: Callable[[], None]
    ) -> None:
        place.store("alice/main/a", b"1" * 100)
        with pytest.raises(ObjectExists), place.open_writer("alice/main/a", if_absent=True) as w:
            w.write(b"2" * 100)
        digest = hashlib.sha256(b"other").hexdigest()
        with (
            pytest.raises(ContentMismatch),
            place.open_writer("alice/main/b", expected_hash=digest) as w,
        ):
            w.write(b"2" * 100)
        with pytest.raises(ContentMismatch), place.open_writer("alice/main/b", size=5) as w:
            w.write(b"22")
        for gone in (place.delete, place.quarantine):
            with pytest.raises(ObjectNotFound):
                gone("alice/main/none")
        with pytest.raises(ObjectNotFound):
            place.move("alice/main/none", "alice/main/b")
        with pytest.raises(ObjectNotFound):
            place.copy("alice/main/none", "alice/main/b")
        with pytest.raises(ObjectNotFound):
            place.delete("alice/main")
        with pytest.raises(InvalidName):
            place.open_writer("../a")
        writer = place.open_writer("alice/main/c")
        writer.write(b"3" * (UNRESERVED + 1))
        writer.abort()
        writer.abort()
        check()

    def test_a_large_body_holds_little_more_than_what_has_come(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1 << 40))
        with place.open_writer("alice/main/a", size=64 << 20) as writer:
            held = ledger.usage("server").reserved.bytes
            assert held <= STEP
            for sent in range(1, 65):
                writer.write(bytes(1 << 20))
                held = ledger.usage("server").reserved.bytes
                assert sent << 20 <= held <= (sent << 20) + STEP
        check()

    def test_writers_of_one_name_end_with_what_is_there(
        self, place: QuotaLayer, check: Callable[[], None]
    ) -> None:
        def work(number: int) -> None:
            for step in range(20):
                try:
                    if step % 4 == 3:
                        place.delete("alice/main/a")
                    else:
                        place.store("alice/main/a", b"x" * (number * 100 + step))
                except ObjectNotFound:
                    continue

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check()


class TestRefusals:
    def test_an_announced_body_is_refused_before_it_comes(
        self, place: QuotaLayer, check: Callable[[], None]
    ) -> None:
        with pytest.raises(LimitExceeded):
            place.open_writer("alice/main/a", size=quota_place.ROOM + 1)
        check()

    def test_an_unannounced_body_is_refused_on_the_way_and_leaves_nothing(
        self, place: QuotaLayer, tmp_path: Path, check: Callable[[], None]
    ) -> None:
        writer = place.open_writer("alice/main/a")
        for _ in range(quota_place.ROOM // (1 << 20)):
            writer.write(bytes(1 << 20))
        with pytest.raises(LimitExceeded):
            writer.write(b"1")
        writer.abort()
        check()
        assert not place.info("alice/main/a").exists
        with place.open_writer("alice/main/a", size=quota_place.ROOM) as writer:
            for _ in range(quota_place.ROOM // (1 << 20)):
                writer.write(bytes(1 << 20))
        check()

    def test_a_small_body_is_refused_before_it_is_visible(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=10))
        with pytest.raises(QuotaExceeded):
            place.store("alice/main/a", b"x" * 11)
        assert not place.info("alice/main/a").exists
        place.store("alice/main/a", b"x" * 10)
        check()

    def test_objects_have_a_limit_too(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("user:alice", Limit(hard_objects=2))
        place.store("alice/main/a", b"")
        place.store("alice/main/b", b"")
        with pytest.raises(LimitExceeded, match="2 objects"):
            place.store("alice/main/c", b"")
        with pytest.raises(LimitExceeded):
            place.copy("alice/main/a", "alice/main/c")
        place.store("alice/main/b", b"again")
        place.store("bob/main/c", b"")
        with pytest.raises(LimitExceeded):
            place.move("bob/main/c", "alice/main/c")
        assert place.info("bob/main/c").exists
        check()

    def test_a_full_place_takes_a_replacement_that_fits(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1 << 20))
        place.store("alice/main/a", bytes(1 << 20))
        place.store("alice/main/a", b"1" * (1 << 20))
        with place.open_writer("alice/main/a") as writer:
            for _ in range(16):
                writer.write(bytes(1 << 16))
        check()
        with pytest.raises(LimitExceeded):
            place.store("alice/main/a", b"1" * ((1 << 20) + 1))
        check()

    def test_locks_always_get_through_uncounted(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=0, hard_objects=0))
        place.store("alice/main/locks/1", b"locked")
        place.move("alice/main/locks/1", "alice/main/locks/2")
        place.delete("alice/main/locks/2")
        check()

    def test_a_lock_is_no_place_to_keep_data_in(self, place: QuotaLayer) -> None:
        with pytest.raises(QuotaExceeded):
            place.open_writer("alice/main/locks/1", size=EXEMPT_SIZE + 1)
        writer = place.open_writer("alice/main/locks/1")
        with pytest.raises(QuotaExceeded):
            writer.write(bytes(EXEMPT_SIZE + 1))
        writer.abort()
        place.store("alice/main/data", bytes(EXEMPT_SIZE + 1))
        with pytest.raises(QuotaExceeded):
            place.move("alice/main/data", "alice/main/locks/1")

    def test_commit_goes_on_once_the_name_is_free(
        self, place: QuotaLayer, check: Callable[[], None]
    ) -> None:
        content = b"y" * (UNRESERVED + 1)
        writer = place.open_writer("alice/a", size=len(content), if_absent=True)
        writer.write(content)
        place.store("alice/a", b"in the way")
        with pytest.raises(ObjectExists):
            writer.commit()
        place.delete("alice/a")
        writer.commit()
        assert place.load("alice/a") == content
        check()


class TestPlaces:
    def test_a_new_ledger_counts_what_is_there(self, tmp_path: Path) -> None:
        quota_place.make(tmp_path)
        with PosixFS(str(tmp_path / "store")) as plain:
            plain.store("alice/main/a", b"x" * 100)
        with quota_place.ledger_of(tmp_path) as ledger, quota_place.layer_of(tmp_path, ledger):
            assert ledger.usage("server").used == Amount(100, 1)

    def test_two_places_share_a_scope(self, ledger: SQLiteLedger) -> None:
        ledger.set_limit("all", Limit(hard_bytes=100))
        first, second = (
            QuotaLayer(Memory(), ledger, lambda _: ["all"], place=place) for place in ("a", "b")
        )
        for place in (first, second):
            place.create()
        with first, second:
            first.store("x", b"1" * 60)
            with pytest.raises(LimitExceeded):
                second.store("x", b"1" * 60)
            second.store("x", b"1" * 40)
            assert first.reconcile().corrections == []
            assert second.reconcile().corrections == []
            assert ledger.usage("all").used == Amount(100, 2)
        first.destroy()
        assert ledger.usage("all").used == Amount(40, 1)

    def test_nothing_native_slips_past(self, ledger: SQLiteLedger) -> None:
        class Native(Memory):
            """A place with operations of its own that would go around the account."""

            capabilities = dataclasses.replace(Memory.capabilities, local_path=True, snapshots=True)

            def native(self, *_: object, **__: object) -> Any:
                raise AssertionError("went past the quota")

            store = defrag = native

        place = QuotaLayer(Native(), ledger, lambda _: ["all"], place="native")
        place.create()
        with place:
            place.store("a", b"12345")
            place.copy("a", "b")
            place.defrag([("a", 0, 3), ("b", 1, 2)], "c")
            assert place.load("c") == b"12323"
            assert ledger.usage("all").used == Amount(15, 3)
            assert not place.capabilities.local_path
            assert not place.capabilities.snapshots

    def test_a_native_copy_is_used_and_accounted(self, ledger: SQLiteLedger) -> None:
        class Copying(Memory):
            capabilities = dataclasses.replace(Memory.capabilities, copy=True)
            copied = 0

            def copy(self, name: str, new_name: str) -> None:
                self.copied += 1
                super().copy(name, new_name)

        inner = Copying()
        ledger.set_limit("all", Limit(hard_bytes=12))
        place = QuotaLayer(inner, ledger, lambda _: ["all"], place="copying")
        place.create()
        with place:
            place.store("a", b"12345")
            place.copy("a", "b")
            with pytest.raises(LimitExceeded):
                place.copy("a", "c")
            place.copy("a", "b")
            assert inner.copied == 2
            assert ledger.usage("all").used == Amount(10, 2)
