"""Places on S3 keep every promise of a backend: on Ceph, on rclone's service, on moto's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from functools import partial

import pytest
from tests.servers import peers
from tests.servers.ceph import PROGRAMS, Ceph
from tests.servers.double import Application, Double, Receive, Scope, Send
from tests.servers.http_proxy import forwarding
from tests.servers.s3 import Moto, RcloneS3

from backupgw.kvstore import open_place
from backupgw.kvstore.conformance import Check, Status, Subject, checks

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
subject_on = partial(Subject, soak=SOAK, scale=0.1, listed=20_000)
"""A long list has twenty pages in a soak, too: each entry is stored by a request."""

REDUCED = (
    "atomicity.",
    "checkpoint.checkpoint_keeps",
    "failing.items_are_no_folders",
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
CREATING = ("concurrency.one_process_creates", "concurrency.one_thread_creates")
MOTO_CANNOT = {
    **dict.fromkeys(CREATING, "it looks whether a name is free and then stores, without a lock"),
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
    with subject_on(partial(open_place, ceph.url("conformance/some/place"))) as at:
        yield at


@pytest.fixture(scope="module")
def on_rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with (
        RcloneS3(tmp_path_factory.mktemp("rclone")) as server,
        subject_on(partial(open_place, server.url("bucket/place"))) as at,
    ):
        yield at


@pytest.fixture(scope="module")
def on_moto() -> Iterator[Subject]:
    # A whole bucket as a place.
    with (
        Moto() as server,
        subject_on(partial(open_place, server.url("bucket"))) as at,
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


def _one_by_one(endpoint: str) -> Application:
    """What is stored goes to the service one after the other: then its look decides."""
    pass_on, turn = forwarding(endpoint), asyncio.Lock()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with turn if scope["method"] == "PUT" else contextlib.nullcontext():
            await pass_on(scope, receive, send)

    return application


@pytest.fixture(scope="module")
def one_by_one() -> Iterator[Subject]:
    with (
        Moto() as server,
        Double(_one_by_one(server.endpoint)) as double,
        subject_on(partial(open_place, server.url("bucket", endpoint=double.url))) as at,
    ):
        yield at


@pytest.mark.soak
@pytest.mark.parametrize("check", [each for each in checks if each.name in CREATING], ids=str)
def test_a_name_is_created_once(check: Check, one_by_one: Subject) -> None:
    result = check.run(one_by_one)
    assert result.status is Status.OK, result.note
