"""The layers keep every promise that a backend makes, alone and in stacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import pytest
from _pytest.mark import ParameterSet
from tests.kvstore import layer_places, quota_place

from backupgw.kvstore.conformance import Check, Status, Subject, checks

PLACES = {
    **layer_places.MAKERS,
    **{
        f"{name} on disk": partial(layer_places.on_disk, stack=name) for name in layer_places.LAYERS
    },
    **{
        f"{name} in memory": partial(layer_places.in_memory, stack=name)
        for name in layer_places.LAYERS
    },
}
ALWAYS = {
    "bare",
    "quota",
    "trash",
    "all that is simple on disk",
    *(f"{name} in memory" for name in layer_places.LAYERS if " " not in name),
}
"""What every run tries; a soak tries all. On disk the suite starts processes of its own too."""


def _rows() -> list[ParameterSet]:
    return [
        pytest.param(place, id=name, marks=() if name in ALWAYS else pytest.mark.soak)
        for name, place in PLACES.items()
    ]


@pytest.fixture(scope="module", params=_rows())
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    folder = str(tmp_path_factory.mktemp("layer"))
    with Subject(partial(request.param, folder)) as subject:
        yield subject
    if folder in layer_places.open_ledgers:
        with contextlib.closing(layer_places.open_ledgers.pop(folder)) as ledger:
            assert quota_place.in_ledger(ledger) == {}, "the suite removed all that it stored"
            assert quota_place.nothing_reserved(ledger)


@pytest.mark.parametrize("check", checks, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note
