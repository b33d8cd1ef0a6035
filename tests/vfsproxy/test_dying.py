"""A gateway that dies at any step of an upload leaves no room behind of which nobody knows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from tests.servers.child import Child

from backupgw.runtime.database.tables.vfs_uploads import vfs_uploads
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Folder
from backupgw.vfsproxy.identity import MANAGER

from .conftest import Inside
from .dying_uploader import Client

SMALL, LARGE = 100_000, 1 << 20
"""Bytes of an upload of which nothing is reserved before it is kept, and of one that has its room
from the beginning."""

Dies = Callable[[str, int, str, int], str]


@pytest.fixture
def folder(inside: Inside) -> Folder:
    return inside.lifecycle.create(MANAGER, Wanted(name="uploads"))


@pytest.fixture
def dies(inside: Inside, folder: Folder) -> Iterator[Dies]:
    """Has another process upload and be killed at a step; returns how it ended."""
    command = [sys.executable, "-m", "tests.vfsproxy.dying_uploader"]
    with Child(
        [*command, str(inside.gateway.config), folder.id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def die(flow: str, size: int, name: str, step: int) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            print(flow, size, name, step, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield die


@pytest.mark.parametrize(
    ("flow", "size"),
    [
        ("create", SMALL),
        pytest.param("create", LARGE, marks=pytest.mark.soak),
        pytest.param("with", SMALL, marks=pytest.mark.soak),
        ("with", LARGE),
        ("after", SMALL),
        pytest.param("after", LARGE, marks=pytest.mark.soak),
    ],
)
def test_whatever_is_reserved_is_an_uploads_that_is_known(
    inside: Inside, folder: Folder, dies: Dies, flow: str, size: int
) -> None:
    client = Client(inside.core, folder.id)
    step, stored = 1, 0
    while (ended := dies(flow, size, str(step), step)) == "killed":
        inside.core.volumes["main"].counted.recover()
        left = client.store.below(folder.id, "", 10)
        assert _reserved(inside, folder) in ({0, size} if left else {0}), step
        for upload in left:
            _forget_the_dead(inside)
            offset = client.offset(upload.id)
            client.patch(upload.id, offset, bytes(size - offset))
            stored += 1
        usage = inside.core.accounts.usage(folder.scope)
        assert (usage.used.bytes, usage.used.objects) == (stored * size, stored), step
        assert _reserved(inside, folder) == 0, step
        step += 1
    assert ended == "done"
    assert step > 8  # or nothing was interrupted
    # That it was created is a promise, which outlasts its gateway.
    assert _reserved(inside, folder) == size
    assert dies(flow, size, "promised", 0) == "killed"
    inside.core.volumes["main"].counted.recover()
    assert _reserved(inside, folder) == 2 * size


def _reserved(inside: Inside, folder: Folder) -> int:
    usage = inside.core.accounts.usage(folder.scope)
    assert usage.reserved.objects == bool(usage.reserved.bytes) or usage.reserved.objects == 2
    return usage.reserved.bytes


def _forget_the_dead(inside: Inside) -> None:
    """Whoever held an upload is taken for dead at once, instead of when its lease has run out."""
    inside.core.database.run(
        lambda connection: connection.execute(sa.update(vfs_uploads).values(lease_until=0.0))
    )
