"""The place in memory keeps every promise of a backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendURLInvalid
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.conformance import Check, Status, Subject, checks


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    with Subject(Memory) as subject:
        yield subject


@pytest.mark.parametrize("check", checks, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


def test_only_what_other_processes_would_see_is_not_offered(subject: Subject) -> None:
    left_out = {check.name for check in checks if check.run(subject).status is Status.NOT_OFFERED}
    assert left_out == {
        "atomicity.killed_writer_leaves_nothing",
        "concurrency.one_process_creates",
        "concurrency.processes_see_no_torn_value",
        "lifecycle.second_opening_sees_the_same",
    }


def test_a_name_is_one_place_for_all_who_say_it() -> None:
    first, second, other = (
        open_place(f"memory:{name}") for name in ("shared-1", "shared-1", "other-1")
    )
    first.create()
    other.create()
    with first, second, other:
        first.store("item", b"value")
        assert second.load("item") == b"value"
        assert not other.info("item").exists
    second.destroy()
    with pytest.raises(BackendDoesNotExist):
        first.open()


def test_no_name_is_a_place_of_its_own() -> None:
    first, second = open_place("memory:"), open_place("memory:")
    first.create()
    with first, pytest.raises(BackendDoesNotExist):
        second.open()


def test_a_destroyed_place_answers_nothing() -> None:
    first, second = open_place("memory:gone-1"), open_place("memory:gone-1")
    first.create()
    first.open()
    second.destroy()
    with pytest.raises(BackendDoesNotExist):
        first.store("item", b"value")
    with pytest.raises(BackendDoesNotExist):
        first.list("")


@pytest.mark.parametrize("url", ["memory:a/b", "memory://host", "memory:a?b=c", "memory:a#b"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BackendURLInvalid, match="memory:NAME"):
        open_place(url)


def test_quarantine_loses_nothing() -> None:
    backend = Memory()
    backend.create()
    with backend:
        backend.store("folder/item", b"damaged")
        kept = backend.quarantine("folder/item")
        place = backend.opened_place()
        found = place.find(kept)
        assert found is not None
        assert getattr(found, "chunks", None) == (b"damaged",)
