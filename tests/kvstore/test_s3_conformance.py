"""Places on S3 keep every promise of a backend: on Ceph, on rclone's service, on moto's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from tests.servers import peers
from tests.servers.ceph import PROGRAMS, Ceph
from tests.servers.s3 import Moto, RcloneS3

from backupgw.kvstore import open_place
from backupgw.kvstore.conformance import Check, Status, Subject, checks

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
SCALE = 0.1

REDUCED = (
    "atomicity.",
    "checkpoint.checkpoint_keeps",
    "keeping.",
    "lifecycle.destroy",
    "listing.list_is",
    "ranges.random",
    "streaming.every",
)
"""What is asked of the second and third service where time is short."""

_MIXES = "it sends the beginning of a new value as if it had the old one's length"
RCLONE_CANNOT = {
    "concurrency.processes_see_no_torn_value": _MIXES,
    "concurrency.threads_see_no_torn_value": _MIXES,
    "naming.decent_names_come_back": "it merges folders whose names are one in Unicode's NFC",
}
MOTO_CANNOT = {
    "naming.decent_names_come_back": "it loses what follows a line's end in a name",
}


LONG = () if SOAK else ("listing.list_streams",)
"""It wants more entries than a few pages of a listing have."""

WHOLE = [check for check in checks if check.name not in LONG]


def some(*left_out: str) -> list[Check]:
    chosen = [check for check in checks if check.name not in left_out]
    return chosen if SOAK else [check for check in chosen if check.name.startswith(REDUCED)]


@pytest.fixture(scope="module")
def on_ceph(ceph: Ceph) -> Iterator[Subject]:
    with Subject(
        partial(open_place, ceph.url("conformance/some/place")), soak=SOAK, scale=SCALE
    ) as at:
        yield at


@pytest.fixture(scope="module")
def on_rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with (
        RcloneS3(tmp_path_factory.mktemp("rclone")) as server,
        Subject(partial(open_place, server.url("bucket/place")), soak=SOAK, scale=SCALE) as at,
    ):
        yield at


@pytest.fixture(scope="module")
def on_moto() -> Iterator[Subject]:
    # A whole bucket as a place.
    with (
        Moto() as server,
        Subject(partial(open_place, server.url("bucket")), soak=SOAK, scale=SCALE) as at,
    ):
        yield at


@pytest.mark.root(*PROGRAMS)
@pytest.mark.parametrize("check", WHOLE, ids=str)
def test_ceph(check: Check, on_ceph: Subject) -> None:
    result = check.run(on_ceph)
    assert result.status is not Status.FAILED, result.note


@pytest.mark.peers(peers.RCLONE)
@pytest.mark.parametrize("check", some(*RCLONE_CANNOT), ids=str)
def test_rclone(check: Check, on_rclone: Subject) -> None:
    result = check.run(on_rclone)
    assert result.status is not Status.FAILED, result.note


@pytest.mark.parametrize("check", some(*MOTO_CANNOT), ids=str)
def test_moto(check: Check, on_moto: Subject) -> None:
    result = check.run(on_moto)
    assert result.status is not Status.FAILED, result.note
