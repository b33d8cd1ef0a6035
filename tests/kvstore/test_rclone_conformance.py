"""Places behind rclone keep every promise of a backend: its remotes `local`, `s3`, `memory`,
`alias` and `crypt`, by the real program."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from tests.conftest import SOAK
from tests.kvstore.filled_folders import on_disk
from tests.kvstore.rclone_places import crypt_place, place, s3_place
from tests.servers import peers
from tests.servers.s3 import Moto

from backupgw.kvstore.conformance import Check, Status, Subject, checks

pytestmark = pytest.mark.peers(peers.RCLONE)

MIB = 1 << 20

SLOW = {"listing.list_streams"}  # 20,000 items by two calls each; see the test of large folders
"""Left to `make soak` on these places."""
LISTED = 10_000
"""Entries of a long list, where each is stored by four requests; on a disk they are 200,000."""
UNKNOWN_TO_MOTO = {"naming.decent_names_come_back"}  # a key with a line's end gets moto's 404


def chosen(*left_out: set[str]) -> list[object]:
    names = set().union(SLOW, *left_out)
    return [
        pytest.param(check, id=str(check), marks=[pytest.mark.soak] * (check.name in names))
        for check in checks
    ]


@pytest.fixture(scope="module")
def on_a_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("local") / "place"
    make = partial(place, f":local:{folder}", 2 * MIB)
    with Subject(make, soak=SOAK, fill=on_disk(folder)) as subject:
        yield subject


@pytest.mark.parametrize("check", chosen())
def test_on_a_disk(check: Check, on_a_disk: Subject) -> None:
    result = check.run(on_a_disk)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture(scope="module")
def on_s3() -> Iterator[Subject]:
    with (
        Moto() as server,
        Subject(
            partial(s3_place, server.endpoint, "conformance/place"), soak=SOAK, listed=LISTED
        ) as subject,
    ):
        yield subject


FEW = {
    "concurrency.threads_see_no_torn_value",
    "concurrency.processes_see_no_torn_value",
    "listing.abandoned_lists_are_harmless",
    "listing.entries_may_vanish",
    "ranges.every_small_range",
    "streaming.copies_in_bounded_memory",
    "streaming.deleted_value_leaves_no_memory",
}
"""Thousands of requests, or many MiB, which moto takes long for."""


@pytest.mark.parametrize(
    "check",
    [each for each in chosen(FEW) if each.id not in UNKNOWN_TO_MOTO],  # type: ignore[attr-defined]
)
def test_on_s3(check: Check, on_s3: Subject) -> None:
    result = check.run(on_s3)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture(
    scope="module", params=[":memory:bucket/place", ':alias,remote=":memory:other":place']
)
def in_memory(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with Subject(partial(place, request.param), soak=SOAK, listed=LISTED) as subject:
        yield subject


@pytest.mark.soak
@pytest.mark.parametrize("check", checks, ids=str)
def test_in_memory(check: Check, in_memory: Subject) -> None:
    result = check.run(in_memory)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """rclone's own encryption (`crypt`) of a folder: names and values change on the way."""
    folder = tmp_path_factory.mktemp("crypt") / "sealed"
    with Subject(partial(crypt_place, str(folder)), soak=SOAK, listed=LISTED) as subject:
        yield subject


@pytest.mark.soak
@pytest.mark.parametrize("check", checks, ids=str)
def test_encrypted(check: Check, encrypted: Subject) -> None:
    result = check.run(encrypted)
    assert result.status is not Status.FAILED, result.note
