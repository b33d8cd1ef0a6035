"""Two clients with one blob, replies that were lost, and deletes that come late: always success,
and one blob. On a disk, on a place that only looks before it creates, and through a real server of
such a place, borgstore's own. With a state folder that its workers share, such a place creates a
name once, too: `tests/runtime/test_place_claims.py` counts what the service has."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.restserver.client import Client
from tests.servers.b2_double import KEY, KEY_ID, B2Double
from tests.servers.borg import BorgstoreServer
from tests.servers.gateway import Gateway

from backupgw.kvstore.backends import b2
from backupgw.kvstore.backends.base import Backend, Writer
from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.backends.rest import REST
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import SQLiteLedger
from backupgw.restserver.listing import Listing
from backupgw.restserver.paths import Target, parse
from backupgw.restserver.repositories import Outcome, Upload, delete_object


class LooksFirst(Memory):
    """A place that cannot create a name only once: with if_absent it looks, and then stores.

    Attributes:
        between: called by writers that have looked and found nothing.
    """

    capabilities = dataclasses.replace(Memory.capabilities, atomic_create=False)

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], object] = lambda: None

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        inner = super().open_writer(name, size=size, expected_hash=expected_hash)
        return LookingWriter(self, inner, name) if if_absent else inner


class LookingWriter(Writer):
    def __init__(self, place: LooksFirst, inner: Writer, name: str) -> None:
        self._place, self._inner, self._name = place, inner, name

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(data)

    def check(self) -> None:
        self._inner.check()

    def commit(self) -> None:
        if self._place.info(self._name).exists:
            raise ObjectExists(self._name)
        self._place.between()
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()


CONTENT = b"what both bring"


def blob() -> Target:
    found = parse(f"/repo/data/{hashlib.sha256(CONTENT).hexdigest()}".encode())
    assert found is not None
    return found


def upload(place: Backend) -> Outcome:
    attempt = Upload(place, blob(), len(CONTENT), verify=True)
    try:
        return attempt.finish([CONTENT])
    finally:
        attempt.abort()


def listed(place: Backend) -> bytes:
    found = parse(b"/repo/data/")
    assert found is not None
    listing = Listing(place, found, sizes=True)
    return b"".join(iter(lambda: listing.next_piece() or b"", b""))


ONE = f'[{{"name":"{blob().id}","size":{len(CONTENT)}}}]'.encode()


@pytest.fixture
def looks_first() -> Iterator[LooksFirst]:
    place = LooksFirst()
    place.create()
    with place:
        yield place


def test_twins_that_both_found_nothing_both_succeed(looks_first: LooksFirst) -> None:
    meeting = threading.Barrier(2, timeout=20)
    looks_first.between = meeting.wait
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(upload, looks_first) for _ in range(2)]
        assert {outcome.result() for outcome in outcomes} <= {Outcome.STORED, Outcome.IDENTICAL}
    assert not meeting.broken
    assert listed(looks_first) == ONE
    assert looks_first.load(blob().name) == CONTENT


def test_twins_are_counted_as_one(looks_first: LooksFirst, tmp_path: Path) -> None:
    ledger = SQLiteLedger(str(tmp_path / "ledger"))
    ledger.open()
    limited = QuotaLayer(looks_first, ledger, scopes=lambda _name: ("server",), total="server")
    limited.reconcile()
    looks_first.between = threading.Barrier(2, timeout=2).wait
    with ThreadPoolExecutor(2) as pool:

        def attempt() -> Outcome:
            try:
                return upload(limited)
            except threading.BrokenBarrierError:
                # The ledger lets one of them wait for the other: they never meet.
                looks_first.between = lambda: None
                return upload(limited)

        for outcome in [pool.submit(attempt) for _ in range(2)]:
            assert outcome.result() in (Outcome.STORED, Outcome.IDENTICAL)
    used = ledger.usage("server").used
    assert (used.objects, used.bytes) == (1, len(CONTENT))
    assert limited.reconcile().corrections == []
    assert listed(looks_first) == ONE
    ledger.close()


def test_an_upload_is_repeated_after_its_reply_was_lost(looks_first: LooksFirst) -> None:
    assert upload(looks_first) is Outcome.STORED
    assert upload(looks_first) is Outcome.IDENTICAL
    assert listed(looks_first) == ONE


def test_a_delete_that_comes_while_an_upload_ends(looks_first: LooksFirst) -> None:
    """restic deletes what it failed to upload, and uploads it again: its clean-up may overtake."""

    def overtaking() -> None:
        with pytest.raises(ObjectNotFound):
            delete_object(looks_first, blob().name, "ann")

    looks_first.between = overtaking
    assert upload(looks_first) is Outcome.STORED
    looks_first.between = lambda: None
    delete_object(looks_first, blob().name, "ann")
    assert upload(looks_first) is Outcome.STORED
    assert listed(looks_first) == ONE


class FarGateway(Gateway):
    """A gateway whose place is that of its settings."""

    def _arguments(self) -> list[str]:
        return ["--listen", "127.0.0.1:0"]


@pytest.fixture(params=["disk", "borgstore", pytest.param("b2", marks=pytest.mark.soak)])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway on a disk, or on a store behind borgstore's server or in B2, which create no name
    once."""
    with ExitStack() as stack:
        url, more = f"file://{tmp_path}/place", ""
        place: Backend = PosixFS(f"{tmp_path}/place")
        if request.param == "borgstore":
            url = stack.enter_context(BorgstoreServer(tmp_path / "store")).url
            place = REST(url)
            assert not place.capabilities.atomic_create
        elif request.param == "b2":
            url = "backblaze:backups-of-tests/place"
            double = stack.enter_context(B2Double())
            double.delay = 0.02
            options: dict[str, Any] = {
                "key_id": KEY_ID,
                "application_key": KEY,
                "realm": double.url,
            }
            more = "".join(f'{key} = "{value}"\n' for key, value in options.items())
            place = b2.from_url(url, **options)
        place.create()
        config = tmp_path / "backupgw.toml"
        config.write_text(
            f'[places.far]\nurl = "{url}"\n{more}[rest]\nplace = "far"\nno_auth = true\n'
            f'[state]\nfolder = "{tmp_path}/state"\n'
        )
        config.chmod(0o600)
        flags = ["--config", str(config), "--workers", "2"]
        yield stack.enter_context(FarGateway(tmp_path, flags=flags))


def status_together(
    gateway: Gateway, start: threading.Barrier, path: str, method: str, body: bytes
) -> int:
    start.wait()
    return Client(gateway).status(method, path, body)


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_twins_late_deletes_and_dying_uploads_over_the_wire(gateway: Gateway, size: int) -> None:
    """Each round: a client dies in the middle, its DELETE and three new uploads come at once."""
    for _ in range(5 if size < 1 << 20 else 2):
        content = os.urandom(size)
        path = f"/repo/data/{hashlib.sha256(content).hexdigest()}"
        dying = socket.create_connection(("127.0.0.1", gateway.port), 60)
        dying.sendall(
            f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n".encode()
            + content[: size // 2]
        )
        start = threading.Barrier(5, timeout=60)
        act = functools.partial(status_together, gateway, start, path)
        with ThreadPoolExecutor(4) as pool:
            deleting = pool.submit(act, "DELETE", b"")
            uploads = [pool.submit(act, "POST", content) for _ in range(3)]
            start.wait()
            dying.close()
            assert deleting.result() == 200
            statuses = [each.result() for each in uploads]
        # A delete that overtook one leaves a 503, which restic repeats like this.
        assert set(statuses) <= {200, 503}
        assert Client(gateway).status("POST", path, content) == 200
        answer = Client(gateway).call("GET", "/repo/data/")
        assert answer.text.count(path[-64:]) == 1
        assert Client(gateway).call("HEAD", path).headers["content-length"] == str(size)
        assert Client(gateway).status("DELETE", path) == 200
    assert Client(gateway).call("GET", "/repo/data/").text == "[]"
