"""Room of bodies that are interrupted, carried on or announced: theirs alone, and counted once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.errors import (
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    QuotaExceeded,
)
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.quota_writer import UNRESERVED
from backupgw.kvstore.ledger import NOTHING, Amount, Limit, LimitExceeded, SQLiteLedger


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
