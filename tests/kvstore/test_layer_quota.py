"""A place under quota: every way in and out is accounted, to the byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.base import Backend, Quota
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    QuotaExceeded,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.quota_changes import EXEMPT_SIZE
from backupgw.kvstore.layers.quota_writer import STEP, UNRESERVED
from backupgw.kvstore.ledger import (
    NOTHING,
    Amount,
    LedgerError,
    LedgerFull,
    Limit,
    LimitExceeded,
    SQLiteLedger,
)
from backupgw.kvstore.names import InvalidName

LIMIT = 40 << 20


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=LIMIT, hard_objects=100))
        yield ledger


@pytest.fixture
def place(tmp_path: Path, ledger: SQLiteLedger) -> Iterator[QuotaLayer]:
    quota_place.make(tmp_path)
    with quota_place.layer_of(tmp_path, ledger) as place:
        yield place


@pytest.fixture
def check(tmp_path: Path, ledger: SQLiteLedger) -> Callable[[], None]:
    """Compare the ledger with the disk."""

    def compare() -> None:
        assert quota_place.nothing_reserved(ledger)
        assert quota_place.in_ledger(ledger) == quota_place.on_disk(tmp_path)

    return compare


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
        assert place.quota() == Quota(LIMIT, 0)

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
            place.open_writer("alice/main/a", size=LIMIT + 1)
        check()

    def test_an_unannounced_body_is_refused_on_the_way_and_leaves_nothing(
        self, place: QuotaLayer, tmp_path: Path, check: Callable[[], None]
    ) -> None:
        writer = place.open_writer("alice/main/a")
        for _ in range(LIMIT // (1 << 20)):
            writer.write(bytes(1 << 20))
        with pytest.raises(LimitExceeded):
            writer.write(b"1")
        writer.abort()
        check()
        assert not place.info("alice/main/a").exists
        with place.open_writer("alice/main/a", size=LIMIT) as writer:
            for _ in range(LIMIT // (1 << 20)):
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


class TestCheckpoints:
    @pytest.mark.parametrize("size", [100, 3 * UNRESERVED])
    def test_a_resumed_upload_is_accounted_once(
        self,
        place: QuotaLayer,
        ledger: SQLiteLedger,
        check: Callable[[], None],
        tmp_path: Path,
        size: int,
    ) -> None:
        writer = place.open_writer("alice/main/a", size=2 * size)
        writer.write(b"1" * size)
        token = writer.checkpoint()
        writer.abort()
        assert ledger.usage("server").reserved == Amount(size, 1)
        writer = place.resume_writer(token)
        assert writer.offset == size
        writer.write(b"2" * size)
        writer.commit()
        check()
        assert place.load("alice/main/a") == b"1" * size + b"2" * size

    def test_the_room_of_a_checkpoint_is_nobody_elses(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000))
        writer = place.open_writer("alice/main/a")
        writer.write(b"1" * 600)
        token = writer.checkpoint()
        with pytest.raises(LimitExceeded):
            place.store("alice/main/b", b"2" * 401)
        place.abort_writer(token)
        place.abort_writer(token)
        place.store("alice/main/b", b"2" * 401)
        check()

    def test_what_came_after_a_checkpoint_counts_when_its_writer_died(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        writer = place.open_writer("alice/main/a", size=3 * UNRESERVED)
        writer.write(b"1" * UNRESERVED)
        token = writer.checkpoint()
        # Another process carries on, and dies without a word: its bytes stay, its token does not.
        dying = place.inner.resume_writer(json.loads(token)["token"])
        dying.write(b"2" * UNRESERVED)
        dying.checkpoint()
        writer = place.resume_writer(token)
        assert writer.offset == 2 * UNRESERVED
        writer.write(b"3" * UNRESERVED)
        writer.commit()
        check()
        assert ledger.usage("server").used == Amount(3 * UNRESERVED, 1)

    def test_room_for_a_later_write_is_taken_over_by_it(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(100))
        token = place.reserve_writer("alice/main/a", size=100, if_absent=True, seconds=60)
        assert ledger.usage("server").reserved == Amount(100, 1)
        with pytest.raises(QuotaExceeded):
            place.reserve_writer("alice/main/b", size=1, seconds=60)
        writer = place.resume_writer(token)
        writer.write(b"1" * 100)
        writer.commit()
        check()
        # Without its room, it takes what is free, and what is there stays.
        writer = place.resume_writer(token)
        writer.write(b"2" * 100)
        with pytest.raises(ObjectExists):
            writer.commit()
        writer.abort()
        assert place.load("alice/main/a") == b"1" * 100
        place.delete("alice/main/a")
        writer = place.resume_writer(token)
        writer.write(b"2" * 100)
        writer.commit()
        check()
        place.delete("alice/main/a")

    def test_room_for_a_later_write_ends_by_itself_or_with_it(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(100))
        for end in (place.abort_writer, lambda token: place.resume_writer(token).abort()):
            end(place.reserve_writer("alice/main/a", size=100, seconds=60))
            assert ledger.usage("server").reserved == NOTHING
        place.reserve_writer("alice/main/a", size=100, seconds=0)
        token = place.reserve_writer("alice/main/b", size=60, seconds=60)
        carried_on = place.resume_writer(token)
        carried_on.write(b"1" * 20)
        writer = place.resume_writer(carried_on.checkpoint())
        assert ledger.usage("server").reserved.objects == 1
        writer.write(b"2" * 40)
        writer.commit()
        check()

    def test_one_of_nothing_holds_room_and_is_good_once(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None], tmp_path: Path
    ) -> None:
        token = place.open_writer("alice/main/a", size=100, if_absent=True).checkpoint()
        assert ledger.usage("server").reserved.objects == 1
        assert not [path for path in tmp_path.rglob("*") if ".backupgw-part" in path.name]
        again = place.resume_writer(token).checkpoint()
        writer = place.resume_writer(again)
        writer.write(b"1" * 100)
        writer.commit()
        check()
        assert place.load("alice/main/a") == b"1" * 100
        for spent in (token, again):
            with pytest.raises(ObjectNotFound):
                place.resume_writer(spent)
            place.abort_writer(spent)
        check()
        given_up = place.open_writer("alice/main/b", size=100).checkpoint()
        place.abort_writer(given_up)
        assert ledger.usage("server").reserved == NOTHING
        with pytest.raises(ObjectNotFound):
            place.resume_writer(given_up)
        # What it has to be in the end is asked for all the same.
        digest = hashlib.sha256(b"2").hexdigest()
        writer = place.resume_writer(
            place.open_writer("alice/main/c", size=1, expected_hash=digest).checkpoint()
        )
        writer.write(b"3")
        with pytest.raises(ContentMismatch):
            writer.commit()

    def test_a_token_that_nobody_made_is_refused(self, place: QuotaLayer) -> None:
        for token in ("", "{}", "[]", '{"token": "x"}'):
            with pytest.raises(ValueError, match="not a token"):
                place.resume_writer(token)


class TestSmallAndNew:
    """Items whose body goes past the layer, to the disk's own writer."""

    def test_limits_around_limits_all_count(self, tmp_path: Path, ledger: SQLiteLedger) -> None:
        quota_place.make(tmp_path)
        disk = quota_place.layer_of(tmp_path, ledger).inner
        inner = QuotaLayer(disk, ledger, lambda _: ["inside"], place="inner")
        with QuotaLayer(inner, ledger, lambda _: ["outside"], place="outer") as place:
            for name in ("a", "b", "folder/c"):
                with place.open_writer(name, size=100, if_absent=True) as writer:
                    writer.write(b"x" * 100)
            place.delete("a")
        for scope in ("inside", "outside"):
            assert ledger.usage(scope).used == Amount(200, 2)
            assert ledger.usage(scope).reserved == NOTHING

    def test_a_folder_of_a_place_is_accounted_by_its_own_names(
        self, tmp_path: Path, ledger: SQLiteLedger
    ) -> None:
        quota_place.make(tmp_path)
        disk = quota_place.layer_of(tmp_path, ledger).inner
        asked: list[str] = []

        def scopes(name: str) -> list[str]:
            asked.append(name)
            return ["all"]

        inside = PrefixLayer(disk, "clients/alice")
        inside.create()
        with QuotaLayer(inside, ledger, scopes) as place:
            with place.open_writer("main/a", size=5, if_absent=True) as writer:
                writer.write(b"12345")
            place.delete("main/a")
        assert set(asked) == {"main/a"}
        assert ledger.usage("all").used == NOTHING

    @pytest.mark.parametrize("folder_is_there", [True, False])
    def test_what_did_not_come_or_was_there_is_not_counted(
        self, place: QuotaLayer, check: Callable[[], None], folder_is_there: bool
    ) -> None:
        if folder_is_there:
            place.store("alice/main/first", b"1")
        short = place.open_writer("alice/main/a", size=3, if_absent=True)
        short.write(b"12")
        with pytest.raises(ContentMismatch):
            short.commit()
        check()
        place.store("alice/main/a", b"old")
        writer = place.open_writer("alice/main/a", size=4, if_absent=True)
        writer.write(b"next")
        with pytest.raises(ObjectExists):
            writer.commit()
        check()
        place.delete("alice/main/a")
        writer.commit()
        assert place.load("alice/main/a") == b"next"
        check()

    def test_a_checkpoint_is_accounted_when_it_is_carried_on(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        writer = place.open_writer("alice/main/a", size=4, if_absent=True)
        writer.write(b"12")
        token = writer.checkpoint()
        assert ledger.usage("server").reserved == Amount(2, 1)
        writer = place.resume_writer(token)
        writer.write(b"34")
        writer.commit()
        check()
        assert ledger.usage("server").used == Amount(4, 1)


class TestWholeBodies:
    @pytest.fixture
    def place(self, tmp_path: Path, ledger: SQLiteLedger) -> Iterator[QuotaLayer]:
        quota_place.make(tmp_path)
        inner = quota_place.layer_of(tmp_path, ledger).inner
        with QuotaLayer(inner, ledger, quota_place.scopes, whole=True) as place:
            yield place

    def test_what_was_announced_is_nobody_elses_before_it_came(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000))
        first = place.open_writer("alice/main/a", size=600)
        with pytest.raises(LimitExceeded):
            place.open_writer("alice/main/b", size=401)
        token = first.checkpoint()
        assert ledger.usage("server").reserved == Amount(600, 1)
        with pytest.raises(LimitExceeded):
            place.open_writer("alice/main/b", size=401)
        writer = place.resume_writer(token)
        writer.write(b"1" * 250)
        assert ledger.usage("server").reserved == Amount(600, 1)
        token = writer.checkpoint()
        assert ledger.usage("server").reserved == Amount(600, 1)
        writer = place.resume_writer(token)
        writer.write(b"1" * 350)
        writer.commit()
        check()
        assert ledger.usage("server").used == Amount(600, 1)

    def test_what_is_given_up_makes_room(
        self, place: QuotaLayer, ledger: SQLiteLedger, check: Callable[[], None]
    ) -> None:
        ledger.set_limit("server", Limit(hard_bytes=1000))
        token = place.open_writer("alice/main/a", size=900).checkpoint()
        place.abort_writer(token)
        place.store("alice/main/b", b"2" * 1000)
        check()


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
                thread.join()
        assert reports[0].corrections
        assert [report.corrections for report in reports[1:]] == [[]] * 4
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
