"""A mirror with a place that fails: what clients notice, and what the places hold afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kvstore.failing_place import gone
from tests.kvstore.mirror_places import opened

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectExists,
    ObjectNotFound,
    StorageFull,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.mirror import MirrorLayer, default_quorum, from_options
from backupgw.kvstore.layers.mirror_crew import Crew
from backupgw.kvstore.layers.mirror_places import Place, State
from backupgw.kvstore.layers.mirror_writer import Lane
from backupgw.kvstore.layers.options import OptionInvalid


def test_a_place_that_was_down_gets_what_it_missed(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        mirror, second = site.mirror, site.places[1]
        for name in ("kept", "deleted", "moved", "replaced"):
            mirror.store(f"repo/{name}", name.encode())
        second.error = gone
        mirror.store("repo/new/deep/item", b"new")
        mirror.store("repo/replaced", b"another")
        mirror.delete("repo/deleted")
        mirror.move("repo/moved", "repo/elsewhere/moved")
        mirror.mkdir("repo/empty")
        assert mirror.load("repo/new/deep/item") == b"new"
        second.error = None
        report = mirror.replay()
        assert report.whole
        assert site.missed() == [0, 0]
        assert site.same() == {
            "repo": b"<folder>",
            "repo/kept": b"kept",
            "repo/replaced": b"another",
            "repo/new": b"<folder>",
            "repo/new/deep": b"<folder>",
            "repo/new/deep/item": b"new",
            "repo/elsewhere": b"<folder>",
            "repo/elsewhere/moved": b"moved",
            "repo/empty": b"<folder>",
        }


def test_it_comes_back_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.places[1].error = gone
        for number in range(4):
            site.mirror.store(f"item{number}", b"x")
        site.wait_for(2, State.DOWN)
        site.places[1].error = None
        site.wait_for(2, State.UP)
        site.mirror.replay()
        assert len(site.same()) == 4


def test_nothing_deleted_rises_again(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("item", b"x")
        site.places[0].error = gone
        site.mirror.delete("item")
        site.places[0].error = None
        assert not site.mirror.info("item").exists
        assert [*site.mirror.list("")] == []
        with pytest.raises(ObjectNotFound):
            site.mirror.load("item")
        site.mirror.replay()
        assert site.same() == {}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_write_that_failed_never_appears(tmp_path: Path, failing: int) -> None:
    """Of two places that both must have it one refuses at the last moment."""
    with opened(tmp_path, quorum=2) as site:
        site.mirror.store("old", b"old")
        site.places[failing].commit_error = lambda: StorageFull("no room")
        for name in ("old", "new"):
            with pytest.raises(StorageFull):
                site.mirror.store(name, b"never")
        site.places[failing].commit_error = None
        assert site.mirror.load("old") == b"old"
        assert not site.mirror.info("new").exists
        site.mirror.replay()
        assert site.same() == {"old": b"old"}


def test_a_write_needs_its_quorum_from_the_start(tmp_path: Path) -> None:
    with opened(tmp_path, quorum=2) as site:
        site.places[1].error = gone
        for _ in range(4):
            with pytest.raises(BackendConnectionError) as caught:
                site.mirror.store("item", b"x")
        assert caught.value.retryable
        assert "1 of 2 places are up, and 2 must be" in str(caught.value)
        site.places[1].error = None
        site.mirror.replay()
        assert site.same() == {}
        site.mirror.store("item", b"x")
        assert site.same() == {"item": b"x"}


def test_a_failed_delete_takes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, quorum=2) as site:
        site.mirror.store("item", b"x")
        site.places[1].error = lambda: StorageFull("no room for the journal of the disk")
        with pytest.raises(BackendError):
            site.mirror.delete("item")
        site.places[1].error = None
        site.mirror.replay()
        assert site.same() == {"item": b"x"}


@pytest.mark.parametrize("held", ["open_writer", "write", "commit"])
def test_a_place_that_hangs_is_left_behind(tmp_path: Path, held: str) -> None:
    """The upload ends with the other place; what hung ends later and does no harm."""
    with opened(tmp_path, patience=0.3) as site:
        site.mirror.store("item", b"old")
        slow = site.places[1]
        slow.hold = held
        slow.free.clear()
        value = bytes(9 << 20)
        with site.mirror.open_writer("item") as writer:
            for start in range(0, len(value), 1 << 20):
                writer.write(value[start : start + (1 << 20)])
        site.wait_for(2, State.DOWN)
        assert site.mirror.info("item").size == len(value)
        site.mirror.delete("item")
        site.mirror.store("item", b"newest")
        slow.hold = ""
        slow.free.set()
        site.wait_for(2, State.UP)
        site.mirror.replay()
        assert site.same() == {"item": b"newest"}


def test_one_full_place_does_not_stop_backups(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.places[0].commit_error = lambda: StorageFull("no room")
        site.mirror.store("item", b"x")
        assert site.mirror.load("item") == b"x"
        assert [info.name for info in site.mirror.list("")] == ["item"]
        site.places[0].commit_error = None
        site.mirror.replay()
        assert site.same() == {"item": b"x"}


def test_reading_goes_on_elsewhere_from_where_it_broke_off(tmp_path: Path) -> None:
    value = bytes(range(256)) * 20_000
    with opened(tmp_path) as site:
        site.mirror.store("item", value)
        site.places[0].break_read_after = 1_000_000
        for offset, size in ((0, None), (5, 4_000_000), (-3_000_000, None)):
            end = None if size is None else offset + size
            assert site.mirror.load("item", offset=offset, size=size) == value[offset:end]
        site.places[1].break_read_after = 1_000_000
        with pytest.raises(BackendConnectionError):
            site.mirror.load("item")


def test_a_read_that_hangs_goes_on_elsewhere(tmp_path: Path) -> None:
    with opened(tmp_path, patience=0.3) as site:
        site.mirror.store("item", b"value")
        site.places[0].hold = "read"
        site.places[0].free.clear()
        assert site.mirror.load("item") == b"value"
        site.places[0].hold = ""
        site.places[0].free.set()


def test_what_one_place_lost_comes_from_the_other_and_is_put_back(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("folder/item", b"value")
        (site.folders[0] / "folder" / "item").unlink()
        assert site.mirror.load("folder/item") == b"value"
        site.mirror.replay()
        assert site.same()["folder/item"] == b"value"


def test_what_cannot_be_read_is_put_right(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.mirror.store("item", b"value" * 1000)
        site.places[0].read_error = lambda: BackendError("a bad sector")
        site.places[0].break_read_after = 100
        assert site.mirror.load("item") == b"value" * 1000
        assert site.missed()[0] >= 0
        site.places[0].break_read_after = None
        site.mirror.replay()
        assert site.missed() == [0, 0]


def test_if_absent_with_the_first_place_down(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        site.places[0].error = gone

        def create(number: int) -> bool:
            try:
                with site.mirror.open_writer("lock", if_absent=True) as writer:
                    writer.write(b"%d" % number)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert [*threads.map(create, range(8))].count(True) == 1
        site.places[0].error = None
        assert not create(9), "the first place came back without the item"
        site.mirror.replay()
        assert len(site.same()) == 1


def test_writers_of_one_name_leave_the_same_everywhere(tmp_path: Path) -> None:
    with opened(tmp_path, 3) as site:
        meet = threading.Barrier(6, timeout=60)

        def write(number: int) -> None:
            for turn in range(20):
                meet.wait()
                if number == 5:
                    try:
                        site.mirror.delete(f"item{turn}")
                    except ObjectNotFound:
                        continue
                else:
                    site.mirror.store(f"item{turn}", b"%d" % number * 1000)

        with ThreadPoolExecutor(6) as threads:
            for done in [threads.submit(write, number) for number in range(6)]:
                done.result(120)
        site.same()


def test_a_list_goes_on_elsewhere_with_nothing_twice(tmp_path: Path) -> None:
    names = {f"item{number:04}" for number in range(700)}
    with opened(tmp_path) as site:
        for name in names:
            site.mirror.store(f"folder/{name}", b"")
        for broken in (0, 1, 500):
            site.places[0].break_list_after = broken
            listed = [info.name for info in site.mirror.list("folder")]
            assert len(listed) == len(names)
            assert set(listed) == names


def test_a_list_while_both_places_lack_something(tmp_path: Path) -> None:
    """Each was down for a while, and neither has been put right yet."""
    with opened(tmp_path) as site:
        site.mirror.store("folder/both", b"x")
        for number, place in enumerate(site.places):
            place.commit_error = lambda: StorageFull("no room")
            site.mirror.store(f"folder/missed{number}", b"xy")
            site.mirror.store(f"missed{number}/item", b"xy")
            place.commit_error = None
        listed = sorted((info.name, info.size) for info in site.mirror.list("folder"))
        assert listed == [("both", 1), ("missed0", 2), ("missed1", 2)]
        assert sorted(info.name for info in site.mirror.list("")) == [
            "folder",
            "missed0",
            "missed1",
        ]
        assert [info.name for info in site.mirror.list("missed1")] == ["item"]
        site.mirror.replay()
        assert len(site.same()) == 8


def test_each_change_of_state_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as site:
        site.places[1].error = gone
        for number in range(30):
            site.mirror.store(f"item{number}", b"")
        site.wait_for(2, State.DOWN)
        downs = [record for record in caplog.records if "is down" in record.getMessage()]
        assert len(downs) == 1
        assert "the cable was pulled" in downs[0].getMessage()
        status = site.mirror.status()[1]
        assert (status.state, status.missed) == (State.DOWN, 30)


def test_options() -> None:
    assert [default_quorum(places) for places in (2, 3, 4, 5)] == [1, 2, 2, 3]
    layer = from_options(Memory(), places=[Memory(), Memory()], journal="/state/j", quorum="3")
    assert isinstance(layer, MirrorLayer)
    assert layer.quorum == 3
    for options, wrong in (
        ({"places": []}, "places"),
        ({"quorum": 3}, "quorum"),
        ({"journal": "relative"}, "journal"),
        ({"patience": "soon"}, "patience"),
    ):
        with pytest.raises(OptionInvalid) as caught:
            from_options(Memory(), **{"places": [Memory()], "journal": "/j", **options})  # type: ignore[arg-type]
        assert caught.value.option == wrong
    with pytest.raises(OptionInvalid, match="journal"):
        from_options(Memory(), places=[Memory()])
    with pytest.raises(ValueError, match="quorum"):
        MirrorLayer(Memory(), [], "/j", quorum=2)


@pytest.fixture
def lone() -> Iterator[Place]:
    """A place in use."""
    crew = Crew("lone")
    place = Place("0", Memory(), crew, patience=60, on_change=lambda _: None)
    place.backend.create()
    place.backend.open()
    place.state = State.UP
    yield place
    place.backend.close()
    crew.close()


@pytest.mark.parametrize("failing", [False, True])
def test_a_call_that_ends_while_its_place_goes_down_does_not_take_that_back(
    lone: Place, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    lone.state = State.UP if failing else State.SUSPECT
    lone._failures = 1
    change = lone._change

    def overtaken(state: State, reason: str, **of: State) -> None:
        change(State.DOWN, "no answer")  # another thread has waited for long enough
        change(state, reason, **of)

    def fail(_: Backend) -> None:
        raise gone()

    monkeypatch.setattr(lone, "_change", overtaken)
    if failing:
        with pytest.raises(BackendConnectionError):
            lone.call(fail)
    else:
        lone.call(lambda _: None)
    assert lone.state is State.DOWN


@pytest.mark.parametrize("of", ["place", "lane"])
def test_an_answer_that_comes_in_the_last_moment_counts(lone: Place, of: str) -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            if timeout is not None:
                self.set_result(7)
                raise TimeoutError
            return super().result()

    if of == "place":
        assert lone.wait(Late()) == 7
    else:
        lane = Lane(lone, Crew("lane"), lambda backend: backend.open_writer("item"))
        lane.drain()
        assert lane.result(Late()) == 7
        lane.run(lambda writer: writer.abort()).result(60)
    assert lone.state is State.UP
