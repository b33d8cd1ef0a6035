"""What is done to a place is told: to the log and to a hook."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.kvstore.flaky_place import FlakyPlace

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendConnectionError, ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory, MemoryReader, MemoryWriter
from backupgw.kvstore.layers.observe import ObserveLayer, Operation
from backupgw.kvstore.registry import open_place

LOGGER = "backupgw.kvstore.layers.observe"


@pytest.fixture
def told() -> list[Operation]:
    return []


@pytest.fixture
def place(told: list[Operation]) -> Iterator[Backend]:
    inner = Memory()
    inner.create()
    with ObserveLayer(inner, "main", told.append) as layer:
        told.clear()
        yield layer


def test_each_operation_is_told_once_with_bytes_and_outcome(
    place: Backend, told: list[Operation]
) -> None:
    place.store("a/item", b"x" * 1000)
    place.load("a/item", offset=100)
    place.info("a/item")
    list(place.list("a"))
    place.move("a/item", "b")
    place.copy("b", "c")
    place.gather([("b", 0, 10), ("c", 0, 20)])
    place.delete("b")
    place.mkdir("folder")
    place.rmdir("folder")
    assert [(op.kind, op.name, op.bytes, op.entries, op.outcome) for op in told] == [
        ("store", "a/item", 1000, 0, "ok"),
        ("load", "a/item", 900, 0, "ok"),
        ("info", "a/item", 0, 0, "ok"),
        ("list", "a", 0, 1, "ok"),
        ("move", "a/item", 0, 0, "ok"),
        ("copy", "b", 0, 0, "ok"),
        ("gather", "", 30, 0, "ok"),
        ("delete", "b", 0, 0, "ok"),
        ("mkdir", "folder", 0, 0, "ok"),
        ("rmdir", "folder", 0, 0, "ok"),
    ]
    assert {op.place for op in told} == {"main"}
    assert all(op.seconds > 0 for op in told)


def test_failures_are_told_by_the_error(place: Backend, told: list[Operation]) -> None:
    for call in (place.load, place.delete, lambda name: [*place.list(name)]):
        with pytest.raises(ObjectNotFound):
            call("nothing")
    assert [(op.kind, op.outcome) for op in told] == [
        ("load", "ObjectNotFound"),
        ("delete", "ObjectNotFound"),
        ("list", "ObjectNotFound"),
    ]


def test_what_was_given_up_is_told_as_such(place: Backend, told: list[Operation]) -> None:
    place.store("item", b"x" * 1000)
    place.store("other", b"")
    told.clear()
    with place.open_reader("item") as reader:
        reader.read(10)
    writer = place.open_writer("new")
    writer.write(b"12345")
    writer.abort()
    writer.abort()
    listing = place.list("")
    next(listing)
    del listing
    token = place.open_writer("later").checkpoint()
    assert [(op.kind, op.bytes, op.outcome) for op in told] == [
        ("load", 10, "broken off"),
        ("store", 5, "aborted"),
        ("list", 0, "broken off"),
        ("store", 0, "checkpoint"),
    ]
    told.clear()
    place.resume_writer(token).commit()
    assert [(op.kind, op.outcome) for op in told] == [("resume", "ok"), ("store", "ok")]


def test_a_write_that_was_refused_is_told_once(place: Backend, told: list[Operation]) -> None:
    place.store("item", b"old")
    told.clear()
    with pytest.raises(ObjectExists), place.open_writer("item", if_absent=True) as writer:
        writer.write(b"new")
    assert [(op.kind, op.outcome) for op in told] == [("store", "ObjectExists")]


def test_a_commit_that_succeeds_in_the_end_is_told_as_success(
    place: Backend, told: list[Operation]
) -> None:
    place.store("item", b"old")
    writer = place.open_writer("item", if_absent=True)
    with pytest.raises(ObjectExists):
        writer.commit()
    place.delete("item")
    told.clear()
    writer.commit()
    assert [(op.kind, op.outcome) for op in told] == [("store", "ok")]


def test_a_download_that_fails_on_the_way_is_told_by_the_error(told: list[Operation]) -> None:
    flaky = FlakyPlace(Memory(), share=0.0, seed=3, sleep=lambda _: None)
    flaky.create()
    with ObserveLayer(flaky, "main", told.append) as place:
        place.store("item", b"x" * 1000)
        told.clear()
        with place.open_reader("item") as reader:
            reader.read(10)
            vars(reader)["_reader"]._cut = 0
            with pytest.raises(BackendConnectionError):
                reader.read(10)
    assert [(op.kind, op.bytes, op.outcome) for op in told if op.kind == "load"] == [
        ("load", 10, "BackendConnectionError")
    ]


def test_the_log_has_a_line_for_each(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        place = open_place("memory:", layers=[{"layer": "observe", "name": "nas"}])
        place.create()
        with place:
            place.store("item", b"12345")
    line = next(line for line in caplog.messages if "store" in line)
    assert line.startswith("nas: store 'item' -> ok, 5 B in ")
    assert line.endswith(" ms")


def test_nothing_lies_in_between_while_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        place = open_place("memory:", layers=["observe"])
        place.create()
        with place:
            writer = place.open_writer("item")
            assert isinstance(writer, MemoryWriter)
            writer.commit()
            assert isinstance(place.open_reader("item"), MemoryReader)
    assert not caplog.records


def test_a_slow_caller_does_not_make_a_slow_place(
    place: Backend, told: list[Operation], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("backupgw.kvstore.layers.observe.time.perf_counter", lambda: now[0])
    place.store("item", b"12345")
    told.clear()
    with place.open_reader("item") as reader:
        now[0] += 100.0
        reader.read(5)
    listing = place.list("")
    now[0] += 100.0
    list(listing)
    assert [op.seconds for op in told] == [0.0, 0.0]
