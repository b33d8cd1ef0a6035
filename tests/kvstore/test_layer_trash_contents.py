"""The operator's side of the trash: listing, restoring, expiring, emptying."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    ObjectExists,
    ObjectNotFound,
    StorageFull,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.kvstore.layers.trash_clock import CLOCK, EARLIEST, ClockDoubted
from backupgw.kvstore.layers.trash_contents import Removed, Trash
from backupgw.kvstore.layers.trash_names import How

DAY = 86_400.0
MONTH = 30 * DAY
START = 1_800_000_000.0


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(clock: Clock, tmp_path: Path) -> Iterator[TrashLayer]:
    inner = PosixFS(str(tmp_path / "store"), durability="fast")
    place = TrashLayer(inner, MONTH, clock=clock)
    place.create()
    with place:
        yield place


def pass_days(clock: Clock, place: Backend, days: int) -> None:
    """Let days pass, with an expiry on each."""
    for _ in range(days):
        clock.now += DAY
        Trash(place).expire()


def names(place: Backend, prefix: str = "") -> list[str]:
    return sorted(entry.name for entry in Trash(place).entries(prefix))


class TestRestoring:
    def test_a_newer_item_stays_unless_asked_otherwise(self, place: TrashLayer) -> None:
        place.store("item", b"one")
        place.delete("item")
        place.store("item", b"two")
        (entry,) = Trash(place).entries()
        with pytest.raises(ObjectExists):
            Trash(place).restore(entry)
        assert place.load("item") == b"two"
        Trash(place).restore(entry, to="folder/beside")
        assert place.load("folder/beside") == b"one"
        place.delete("folder/beside")
        (entry,) = Trash(place).entries()
        Trash(place).restore(entry, to="item", replace=True)
        assert place.load("item") == b"one"
        (entry,) = Trash(place).entries()
        assert place.inner.load(entry.path) == b"two"

    def test_the_value_of_any_time_comes_back(self, place: TrashLayer, clock: Clock) -> None:
        times = []
        for value in (b"one", b"two", b"three"):
            place.store("repo/item", value)
            clock.now += 100
            times.append(clock.now)
            clock.now += 100
        place.delete("repo/item")
        trash = Trash(place)
        assert [entry.size for entry in trash.versions("repo/item")] == [5, 3, 3]
        found = [trash.restore_name("repo/item", at=times[1])]
        assert place.load("repo/item") == b"two"
        found.append(trash.restore_name("repo/item", at=times[0], replace=True))
        assert place.load("repo/item") == b"one"
        assert [entry.size for entry in found] == [3, 3]
        assert {entry.size for entry in trash.versions("repo/item")} == {5, 3}

    def test_what_is_not_there_is_not_found(self, place: TrashLayer, clock: Clock) -> None:
        place.store("item", b"value")
        place.delete("item")
        (entry,) = Trash(place).entries()
        with pytest.raises(ObjectNotFound, match="nothing of that name"):
            Trash(place).restore_name("other")
        with pytest.raises(ObjectNotFound, match="since then"):
            Trash(place).restore_name("item", at=clock.now + 10)
        Trash(place).restore(entry)
        with pytest.raises(ObjectNotFound, match="no longer in the trash"):
            Trash(place).restore(entry)

    def test_a_repository_that_somebody_wiped_comes_back_whole(
        self, place: TrashLayer, clock: Clock
    ) -> None:
        good = {
            f"alice/{kind}/{number % 7}/{number}": f"{kind}{number}".encode()
            for kind in ("data", "snapshots")
            for number in range(40)
        }
        for name, value in good.items():
            place.store(name, value)
        place.store("bob/data/1", b"bob's")
        before = clock.now
        clock.now += 3600
        for number, name in enumerate(good):  # deleted, written over, or both
            if number % 3:
                place.store(name, b"rubbish")
            if number % 3 < 2:
                place.delete(name)
        place.delete("bob/data/1")
        clock.now += 3600
        restored = Trash(place).restore_all("alice/", at=before, replace=True)
        assert restored.failures == 0
        assert {name: place.load(name) for name in good} == good
        assert not place.info("bob/data/1").exists
        # Once more changes nothing but what it replaces.
        Trash(place).restore_all("alice/", at=clock.now)
        assert {name: place.load(name) for name in good} == good

    def test_without_a_time_the_last_version_comes_back(
        self, place: TrashLayer, clock: Clock
    ) -> None:
        for value in (b"one", b"two"):
            place.store("a/item", value)
            clock.now += 2 * DAY
        place.delete("a/item")
        place.store("a/other", b"deleted")
        place.delete("a/other")
        place.store("a/other", b"newer")
        restored = Trash(place).restore_all("a/")
        assert (restored.items, restored.kept_newer) == (1, 2)
        assert place.load("a/item") == b"two"
        assert place.load("a/other") == b"newer"
        Trash(place).restore_all("a/", pattern="*/other", replace=True)
        assert place.load("a/other") == b"deleted"

    @pytest.mark.parametrize("deleted", [True, False])
    @pytest.mark.parametrize("by_time", [True, False])
    def test_restoring_twice_ends_as_restoring_once(
        self, place: TrashLayer, clock: Clock, by_time: bool, deleted: bool
    ) -> None:
        before = clock.now + 1
        for value in (b"one", b"two", b"three"):
            place.store("a/item", value)
            clock.now += 2 * DAY  # each in a bucket of its own
        if deleted:
            place.delete("a/item")
        at = before if by_time else None
        expected = b"one" if by_time else (b"three" if deleted else b"two")
        for times in range(3):
            restored = Trash(place).restore_all("a/", at=at, replace=True)
            assert place.load("a/item") == expected
            assert bool(restored.items) == (times == 0)
        kept = {place.load(entry.path) for entry in Trash(place).entries()}
        assert kept | {expected} == {b"one", b"two", b"three"}

    def test_what_a_restore_replaced_fills_a_gap(self, place: TrashLayer) -> None:
        place.store("item", b"one")
        place.store("item", b"two")
        trash = Trash(place)
        trash.restore_all(replace=True)
        assert [entry.how for entry in trash.entries()] == [How.UNDONE]
        place.delete("item")
        (_, deleted) = sorted(trash.entries(), key=lambda entry: entry.when)
        trash.remove(deleted)
        trash.restore_all()
        assert place.load("item") == b"two"

    def test_what_cannot_come_back_does_not_keep_the_others(self, place: TrashLayer) -> None:
        place.store("a", b"item")
        place.delete("a")
        place.store("b", b"item")
        place.delete("b")
        place.store("a/item where a folder is", b"item")
        restored = Trash(place).restore_all(replace=True)
        assert restored.items == 1
        assert restored.failures == 1
        assert restored.failed[0].startswith("a: ")
        assert place.load("b") == b"item"


class TestExpiry:
    def test_things_stay_their_time_and_then_go(
        self, place: TrashLayer, clock: Clock, tmp_path: Path
    ) -> None:
        place.store("repo/data/a", b"value")
        place.delete("repo/data/a")
        pass_days(clock, place, 30)
        place.store("repo/data/b", b"value")
        place.delete("repo/data/b")
        assert names(place) == ["repo/data/a", "repo/data/b"]
        clock.now += DAY
        contents = Trash(place).contents()
        assert (contents.items, contents.bytes, contents.expired) == (2, 10, 1)
        assert Trash(place).expire() == Removed(1, 5, more=False)
        assert names(place) == ["repo/data/b"]
        pass_days(clock, place, 31)
        assert names(place) == []
        assert sorted(os.listdir(tmp_path / "store" / ".backupgw-trash")) == ["clock"]

    def test_one_call_removes_a_bounded_number(self, place: TrashLayer, clock: Clock) -> None:
        for number in range(25):
            place.store(f"{number % 3}/{number}", b"value")
            place.delete(f"{number % 3}/{number}")
        pass_days(clock, place, 29)
        clock.now += 3 * DAY
        steps = [Trash(place).expire(most=10) for _ in range(3)]
        assert [(step.items, step.more) for step in steps] == [(10, True), (10, True), (5, False)]

    def test_a_short_time_is_kept_to_the_second(self, tmp_path: Path, clock: Clock) -> None:
        place = TrashLayer(Memory(), 10, clock=clock)
        place.create()
        with place:
            place.store("item", b"value")
            place.delete("item")
            clock.now += 9.5
            assert Trash(place).expire().items == 0
            clock.now += 2
            assert Trash(place).expire().items == 1

    def test_emptying_takes_what_has_expired_and_only_by_force_the_rest(
        self, place: TrashLayer, clock: Clock
    ) -> None:
        place.store("a/old", b"value")
        place.delete("a/old")
        pass_days(clock, place, 30)
        clock.now += DAY
        for name in ("a/new", "b/new"):
            place.store(name, b"value")
            place.delete(name)
        assert Trash(place).empty("b/") == Removed()
        assert Trash(place).empty().items == 1
        assert names(place) == ["a/new", "b/new"]
        assert Trash(place).empty("a/", force=True).items == 1
        assert names(place) == ["b/new"]

    def test_a_place_that_breaks_off_ends_it_with_its_error(
        self, place: TrashLayer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.store("item", b"value")
        place.delete("item")

        def broken(name: str) -> None:
            raise BackendConnectionError(name)

        monkeypatch.setattr(place.inner, "delete", broken)
        with pytest.raises(BackendConnectionError):
            Trash(place).empty(force=True)
        monkeypatch.undo()
        assert names(place) == ["item"]

    def test_a_full_disk_does_not_keep_it_from_making_room(
        self, place: TrashLayer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.store("item", b"value")
        place.delete("item")
        pass_days(clock, place, 30)
        clock.now += 2 * DAY

        def full(name: str, value: bytes) -> None:
            raise StorageFull(name)

        monkeypatch.setattr(place.inner, "store", full)
        assert Trash(place).expire().items == 1


class TestClock:
    def test_a_clock_that_jumps_by_years_empties_nothing(
        self, place: TrashLayer, clock: Clock
    ) -> None:
        place.store("item", b"value")
        place.delete("item")
        clock.now += 3 * 365 * DAY
        for attempt in (Trash(place).expire, Trash(place).empty):
            with pytest.raises(ClockDoubted, match=r"2027-01-15.*nothing is removed"):
                attempt()
        place.store("other", b"value")
        place.delete("other")  # deleting goes on, and vouches for nothing
        with pytest.raises(ClockDoubted):
            Trash(place).expire()
        assert names(place) == ["item", "other"]
        clock.now -= 3 * 365 * DAY
        assert Trash(place).expire() == Removed()
        # The clock was right after all: an operator says so, once.
        clock.now += 2 * 365 * DAY
        assert Trash(place).expire(trusted=True).items == 1
        assert Trash(place).expire() == Removed()

    def test_a_jump_of_half_the_time_is_doubted(self, place: TrashLayer, clock: Clock) -> None:
        place.store("item", b"value")
        place.delete("item")
        clock.now += 14 * DAY
        Trash(place).expire()
        clock.now += 16 * DAY
        with pytest.raises(ClockDoubted):
            Trash(place).expire()
        assert names(place) == ["item"]

    def test_a_clock_that_went_back_shortens_nothing(self, place: TrashLayer, clock: Clock) -> None:
        place.store("item", b"value")
        place.delete("item")
        clock.now -= 20 * 365 * DAY
        place.store("other", b"value")
        place.delete("other")
        (first, second) = sorted(Trash(place).entries(), key=lambda entry: entry.name)
        assert second.until >= first.until >= START + MONTH

    def test_a_clock_that_was_never_set_shortens_nothing(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        clock.now = 1000.0
        place = TrashLayer(Memory(), MONTH, clock=clock)
        place.create()
        with place:
            place.store("item", b"value")
            place.delete("item")
            (entry,) = Trash(place).entries()
            assert entry.until >= EARLIEST + MONTH
            clock.now = START
            assert Trash(place).expire() == Removed(), "nobody knows yet how long it has been there"

    def test_another_gateway_knows_the_time_that_was_seen(
        self, place: TrashLayer, clock: Clock, tmp_path: Path
    ) -> None:
        place.store("item", b"value")
        place.delete("item")
        behind = Clock()
        behind.now = START - 365 * DAY
        inner = PosixFS(str(tmp_path / "store"), durability="fast")
        with TrashLayer(inner, MONTH, clock=behind) as other:
            other.store("other", b"value")
            other.delete("other")
        assert all(entry.until >= START + MONTH for entry in Trash(place).entries())

    def test_a_damaged_note_of_the_time_removes_nothing(
        self, place: TrashLayer, clock: Clock, tmp_path: Path
    ) -> None:
        place.store("item", b"value")
        place.delete("item")
        place.inner.store(CLOCK, b"rubbish")
        with TrashLayer(PosixFS(str(tmp_path / "store")), MONTH, clock=clock) as fresh:
            fresh.store("other", b"value")
            fresh.delete("other")
            with pytest.raises(ClockDoubted, match="damaged"):
                Trash(fresh).expire()
            assert Trash(fresh).expire(trusted=True) == Removed()
            assert Trash(fresh).expire() == Removed()
        assert names(place) == ["item", "other"]


def test_listing_does_not_grow_with_what_is_kept(place: TrashLayer) -> None:
    for number in range(2000):
        place.store(f"repo/data/{number % 16:02}/{number}", b"")
        place.delete(f"repo/data/{number % 16:02}/{number}")
    trash = Trash(place)
    tracemalloc.start()
    try:
        assert sum(1 for _ in trash.entries()) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 250_000, "a list of 2,000 entries would take a megabyte"
    assert sum(1 for _ in trash.entries("repo/data/03/")) == 125
    assert sum(1 for _ in trash.entries(pattern="*/1??")) == 100
