"""Limits are exact among gateways that share a database, whatever dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.conftest import SOAK
from tests.servers.child import Child
from tests.servers.postgres import PASSWORD, QUOTED_PASSWORD
from tests.servers.vfs_gateway import VfsGateway

from backupgw.runtime.database import connect, schema
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Folder, Holder, Kind, Limits
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.manager.references import reference_of

from .conftest import Inside

SIZE = 1 << 20
FITTING = 10
WRITERS = 64
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = "application/offset+octet-stream"


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
        self.process = Child(
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
        try:
            assert self.process.stdout.readline() == "ready\n"
        except BaseException:
            self.process.end()
            raise

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def outcomes(self) -> Counter[str]:
        with self.process:
            out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return Counter(json.loads(out))

    def kill(self) -> None:
        with self.process:
            self.process.kill()


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
    _recovered(shared, folder)
    assert used(shared, folder.scope) == (size, files)
    # What the dead one held is there for others again.
    last = Gateway(shared, folder, WRITERS // 2, "c")
    last.begin()
    assert last.outcomes()["stored"] == FITTING - files
    assert on_disk(shared, folder) == (FITTING * SIZE, FITTING)


class Pair:
    """Two gateways on one PostgreSQL and one volume, and many clients of both.

    Attributes:
        begun: paths of the uploads of which somebody was told.
    """

    def __init__(self, gateways: Sequence[VfsGateway], folder: Folder, size: int) -> None:
        self.gateways = gateways
        self.begun: list[str] = []
        self._url = f"/v1/folders/{folder.id}"
        self._which = {"volume": folder.volume, "vfid": reference_of(folder)}
        self._body = bytes(size)

    def upload_all(self, meanwhile: Callable[[], None] = lambda: None) -> Counter[int]:
        """Have all writers begin at the same moment; return how they were answered. A gateway that
        is gone answers 0.

        Args:
            meanwhile: called at that moment.
        """
        begin = threading.Barrier(WRITERS, action=meanwhile)

        def work(number: int) -> int:
            with self.gateways[number % 2].manager() as client:
                client.get("/")  # be connected
                begin.wait()
                try:
                    return (self._put, self._tus, self._token)[number % 3](client, number)
                except httpx.TransportError:
                    return 0

        with ThreadPoolExecutor(WRITERS) as pool:
            return Counter(pool.map(work, range(WRITERS)))

    def _put(self, client: httpx.Client, number: int) -> int:
        return client.put(f"{self._url}/files/{number}", content=self._body).status_code

    def _tus(self, client: httpx.Client, number: int) -> int:
        name = b64encode(str(number).encode()).decode()
        told = {"Upload-Length": str(len(self._body)), "Upload-Metadata": f"filename {name}"}
        created = client.post(f"{self._url}/uploads", headers={**TUS, **told})
        if created.status_code != 201:
            return created.status_code
        path = created.headers["location"]
        self.begun.append(path)
        status = self.patch(client, path, 0)
        return 201 if status == 204 else status

    def _token(self, client: httpx.Client, number: int) -> int:
        wanted = {**self._which, "relpath": str(number), "size": len(self._body)}
        given = client.post("/folder/file/upload", json=wanted)
        if given.status_code != 200:
            return given.status_code
        # Told by one gateway, used at the other.
        url = f"{self.gateways[1 - number % 2].url}/upload?token={given.json()['token']}"
        told = {**TUS, "Content-Type": OCTETS, "Upload-Offset": "0"}
        status = httpx.patch(url, headers=told, content=self._body, timeout=60).status_code
        return 201 if status == 204 else status

    def patch(self, client: httpx.Client, path: str, offset: int) -> int:
        """Send the rest of an upload."""
        told = {**TUS, "Content-Type": OCTETS, "Upload-Offset": str(offset)}
        return client.patch(path, headers=told, content=self._body[offset:]).status_code


@pytest.fixture
def pair(
    tmp_path: Path, shared: Inside, state: str
) -> Iterator[Callable[[str, int], tuple[Pair, Folder]]]:
    """Returns two gateways and a new folder of a name that has room for ten files of a size."""
    with (
        VfsGateway(tmp_path / "one", state=state, volume=shared.volume) as one,
        VfsGateway(tmp_path / "other", state=state, volume=shared.volume) as other,
    ):

        def make(name: str, size: int) -> tuple[Pair, Folder]:
            limits = Limits(bytes=FITTING * size)
            folder = shared.lifecycle.create(MANAGER, Wanted(name=name, limits=limits))
            return Pair((one, other), folder, size), folder

        yield make


@pytest.mark.parametrize("size", [4096, pytest.param(SIZE, marks=pytest.mark.soak)])
def test_exactly_what_fits_is_stored_over_http(
    shared: Inside, pair: Callable[[str, int], tuple[Pair, Folder]], size: int
) -> None:
    for number in range(20 if SOAK else 1):
        clients, folder = pair(f"round {number}", size)
        assert clients.upload_all() == {201: FITTING, 507: WRITERS - FITTING}
        assert on_disk(shared, folder) == (FITTING * size, FITTING)
        _settled(shared, folder)
        assert used(shared, folder.scope) == (FITTING * size, FITTING)


@pytest.mark.soak
def test_a_gateway_that_is_killed_amid_uploads_leaves_the_accounts_right(
    shared: Inside, pair: Callable[[str, int], tuple[Pair, Folder]]
) -> None:
    for number in range(5):
        clients, folder = pair(f"killed {number}", SIZE)
        victim = clients.gateways[0]
        killing = threading.Timer(0.15, victim.kill)
        statuses = clients.upload_all(killing.start)
        killing.join()
        victim.start()
        assert set(statuses) <= {0, 201, 507}, statuses
        # Whoever was told of an upload carries it on; what nobody was told of is given up.
        with victim.manager() as client:
            for path in clients.begun:
                found = _asked_again(client, "HEAD", path)
                if found.status_code == 200:
                    clients.patch(client, path, int(found.headers["upload-offset"]))
            listed = client.get(f"/v1/folders/{folder.id}/uploads").json()["items"]
            for upload in listed:
                _asked_again(client, "DELETE", f"/v1/uploads/{upload['id']}")
        _recovered(shared, folder)
        size, files = on_disk(shared, folder)
        assert size <= FITTING * SIZE
        assert used(shared, folder.scope) == (size, files)
        # What the dead one held is there for others again.
        with victim.manager() as client:
            url = f"/v1/folders/{folder.id}/files"
            more = [client.put(f"{url}/more{n}", content=bytes(SIZE)) for n in range(FITTING)]
        assert Counter(answer.status_code for answer in more)[201] == FITTING - files
        assert on_disk(shared, folder) == (FITTING * SIZE, FITTING)
        _settled(shared, folder)
        assert used(shared, folder.scope) == (FITTING * SIZE, FITTING)


def _asked_again(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """Ask until no gateway works on the upload: a dead one does until its lease has run out."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.request(method, path, headers=TUS)
        if answer.status_code != 423:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _settled(shared: Inside, folder: Folder) -> None:
    """Wait until nothing is held: what is done may count as on its way for a moment more."""
    deadline = time.monotonic() + 10
    while shared.core.accounts.usage(folder.scope).reserved != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _recovered(shared: Inside, folder: Folder) -> None:
    """Wait until nothing is held: a process that is not heard of is dead after its lease."""
    opened = shared.core.volumes["main"]
    deadline = time.monotonic() + 60
    while shared.core.accounts.usage(folder.scope).reserved != (0, 0):
        assert time.monotonic() < deadline
        opened.counted.recover()
        time.sleep(0.1)
