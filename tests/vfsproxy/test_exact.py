"""Limits are exact among gateways that share a database, whatever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.servers.postgres import PASSWORD, QUOTED_PASSWORD
from tests.servers.vfs_gateway import VfsGateway

from backupgw.runtime.database import connect, schema
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Folder, Holder, Kind, Limits
from backupgw.vfsproxy.identity import MANAGER

from .conftest import Inside

SIZE = 1 << 20
FITTING = 10
WRITERS = 64


@pytest.fixture
def state(postgres_url: str) -> str:
    """The section `[state]` of gateways that share a PostgreSQL."""
    with connect(postgres_url) as database:
        schema.migrate(database)
    user, _, rest = postgres_url.replace(QUOTED_PASSWORD, "").partition(":@")
    return f'database = "{user}@{rest}"\ndatabase_password = "{PASSWORD}"'


@pytest.fixture
def shared(tmp_path: Path, state: str) -> Iterator[Inside]:
    """A core on a PostgreSQL that others share."""
    found = Inside(tmp_path / "gateway", state=state)
    with found.core:
        yield found


class Gateway:
    """A process with its share of the writers."""

    def __init__(self, inside: Inside, folder: Folder, writers: int, prefix: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.vfsproxy.quota_worker",
                str(inside.gateway.config),
                folder.id,
                str(writers),
                str(SIZE),
                prefix,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def outcomes(self) -> Counter[str]:
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return Counter(json.loads(out))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def on_disk(inside: Inside, folder: Folder) -> tuple[int, int]:
    files = [
        path
        for path in (inside.volume / folder.path).rglob("*")
        if path.is_file() and ".backupgw" not in str(path.relative_to(inside.volume))
    ]
    return sum(path.stat().st_size for path in files), len(files)


def used(inside: Inside, scope: str) -> tuple[int, int]:
    usage = inside.core.accounts.usage(scope)
    return usage.used.bytes, usage.used.objects


@pytest.mark.parametrize("limited", ["folder", "user", "files"])
def test_exactly_what_fits_is_stored_by_two_gateways(shared: Inside, limited: str) -> None:
    owner = Holder(Kind.USER, "alice")
    room = Limits(files=FITTING) if limited == "files" else Limits(bytes=FITTING * SIZE)
    for number in range(20 if SOAK else 1):
        wanted = Wanted(
            name=f"round {number}",
            holder=Holder(Kind.USER, f"alice{number}"),
            limits=None if limited == "user" else room,
        )
        folder = shared.lifecycle.create(MANAGER, wanted)
        if limited == "user":
            owner = folder.holder
            shared.core.accounts.set_limits(owner.scope, room)
        gateways = [Gateway(shared, folder, WRITERS // 2, prefix) for prefix in "ab"]
        for gateway in gateways:
            gateway.begin()
        outcomes = gateways[0].outcomes() + gateways[1].outcomes()
        assert outcomes == {"stored": FITTING, "refused": WRITERS - FITTING}
        expected = (FITTING * SIZE, FITTING)
        assert on_disk(shared, folder) == expected
        assert used(shared, folder.scope) == expected
        assert used(shared, folder.holder.scope) == expected
        assert shared.core.accounts.usage(folder.scope).reserved == (0, 0)


def test_a_gateway_that_is_killed_leaves_the_accounts_right(shared: Inside) -> None:
    limits = Limits(bytes=FITTING * SIZE)
    folder = shared.lifecycle.create(MANAGER, Wanted(name="killed", limits=limits))
    one, other = (Gateway(shared, folder, WRITERS // 2, prefix) for prefix in "ab")
    one.begin()
    other.begin()
    one.kill()
    outcomes = other.outcomes()
    assert set(outcomes) <= {"stored", "refused"}
    size, files = on_disk(shared, folder)
    assert size <= FITTING * SIZE
    # A process that is not heard of is taken for dead after its lease.
    ledger = shared.core.accounts.ledger
    opened = shared.core.volumes["main"]
    deadline = os.times().elapsed + 60
    while ledger.usage(folder.scope).reserved != (0, 0) and os.times().elapsed < deadline:
        opened.counted.recover()
    opened.counted.recover()
    assert used(shared, folder.scope) == (size, files)
    assert ledger.usage(folder.scope).reserved == (0, 0)
    # What the dead one held is there for others again.
    last = Gateway(shared, folder, WRITERS // 2, "c")
    last.begin()
    assert last.outcomes()["stored"] == FITTING - files
    assert on_disk(shared, folder) == (FITTING * SIZE, FITTING)


def test_exactly_what_fits_is_stored_over_http(tmp_path: Path, shared: Inside, state: str) -> None:
    limits = Limits(bytes=FITTING * SIZE)
    folder = shared.lifecycle.create(MANAGER, Wanted(name="http", limits=limits))
    url = f"/v1/folders/{folder.id}/files"
    with (
        VfsGateway(tmp_path / "one", state=state, volume=shared.volume) as one,
        VfsGateway(tmp_path / "other", state=state, volume=shared.volume) as other,
        one.manager() as first,
        other.manager() as second,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        begin = threading.Barrier(WRITERS)

        def put(number: int) -> int:
            begin.wait()
            client = (first, second)[number % 2]
            return client.put(f"{url}/{number}", content=bytes(SIZE)).status_code

        statuses = Counter(pool.map(put, range(WRITERS)))
    assert statuses == {201: FITTING, 507: WRITERS - FITTING}
    assert on_disk(shared, folder) == (FITTING * SIZE, FITTING)
    assert used(shared, folder.scope) == (FITTING * SIZE, FITTING)
