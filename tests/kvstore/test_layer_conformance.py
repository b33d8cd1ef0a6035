"""The layers keep every promise that a backend makes, alone and in stacks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from _pytest.mark import ParameterSet
from tests.kvstore import layer_places, quota_place

from backupgw.kvstore.backends import posixfs_ahead
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.conformance.subject import LARGE as WHOLE
from backupgw.kvstore.conformance.subject import LEAST_LARGE

PLACES: dict[str, Callable[[str], Backend]] = {
    **layer_places.MAKERS,
    **{
        f"{name} on disk": partial(layer_places.on_disk, stack=name) for name in layer_places.LAYERS
    },
    **{
        f"{name} in memory": partial(layer_places.in_memory, stack=name)
        for name in layer_places.LAYERS
    },
}
SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
ALWAYS = {
    "quota",
    "trash",
    "all that is simple on disk",
    *(f"{name} in memory" for name in layer_places.LAYERS if " " not in name),
}
"""What every run tries whole; a soak tries all. On disk the suite starts processes, too."""
LISTED = {"listing.list_streams": 0.25 if SOAK else 0.1}
"""Lists of 2,000 entries, 5,000 in a soak: a layer that holds them whole is seen at any length, and
each entry costs all the layer's work. The places beneath are tested with 20,000."""
LARGE = WHOLE if SOAK else LEAST_LARGE
"""24 MiB: twice what a layer may hold. The places beneath move 64, and so do layers in a soak."""
STACKS = {
    "bare",
    "mirror",
    "trash over a cached mirror",
    "quota over trash",
    "trash over encryption",
    "cache, alone in memory",
}
"""What every run tries but for LONG."""
LONG = {
    "atomicity.killed_writer_leaves_nothing",
    "checkpoint.resumed_elsewhere",
    "concurrency.one_process_creates",
    "concurrency.one_thread_creates",
    "concurrency.processes_see_no_torn_value",
    "concurrency.threads_see_no_torn_value",
    "lifecycle.destroy_removes_everything",
    "listing.abandoned_lists_are_harmless",
    "listing.entries_may_vanish",
    "listing.list_streams",
    "streaming.big_value_in_bounded_memory",
    "streaming.copies_in_bounded_memory",
    "streaming.deleted_value_leaves_no_memory",
    "streaming.every_size_comes_back",
}
"""Checks with processes, thousands of items or 64 MiB: nine tenths of the suite's time."""


def _rows() -> list[ParameterSet]:
    return [
        pytest.param(place, id=name, marks=() if name in ALWAYS else pytest.mark.soak)
        for name, place in PLACES.items()
    ]


@contextlib.contextmanager
def _tried(place: Callable[[str], Backend], folder: str) -> Iterator[Subject]:
    with Subject(partial(place, folder), large=LARGE) as tried:
        yield tried
    if folder in layer_places.open_ledgers:
        with contextlib.closing(layer_places.open_ledgers.pop(folder)) as ledger:
            assert quota_place.in_ledger(ledger) == {}, "the suite removed all that it stored"
            assert quota_place.nothing_reserved(ledger)


@pytest.fixture(scope="module", params=_rows())
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    with _tried(request.param, str(tmp_path_factory.mktemp("layer"))) as subject:
        yield subject


@pytest.fixture(scope="module", params=sorted(STACKS))
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    with _tried(PLACES[request.param], str(tmp_path_factory.mktemp("stack"))) as subject:
        yield subject


@pytest.mark.parametrize("check", checks, ids=str)
def test_conformance(check: Check, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "scale", LISTED.get(str(check), 1.0))
    # What a slow folder looks at ahead would be half of so short a list; here it is the layers'.
    monkeypatch.setattr(posixfs_ahead, "BATCH", 100)
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


def test_what_takes_long_exists() -> None:
    assert {str(check) for check in checks} >= LONG


@pytest.mark.parametrize("check", [each for each in checks if str(each) not in LONG], ids=str)
def test_stacks_conform_in_short(check: Check, stack: Subject) -> None:
    result = check.run(stack)
    assert result.status is not Status.FAILED, result.note
