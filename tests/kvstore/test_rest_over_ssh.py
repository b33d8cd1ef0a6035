"""`rest://` through a real sshd: both servers at its other end, tied logins, broken connections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from tests.servers.sshd import Sshd

from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.backends.rest import REST, from_url
from backupgw.kvstore.backends.rest_transfers import RestWriter

pytestmark = pytest.mark.root("sshd")

OURS = "backupgw borg serve"
BORGSTORES = "borgstore-server-rest"
BOTH = [OURS, pytest.param(BORGSTORES, marks=pytest.mark.soak)]
BIG = 24 << 20
"""Bytes: much more than the pipes between client and server hold."""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def login(sshd: Sshd) -> Iterator[Sshd]:
    yield sshd
    sshd.allow()


def at(sshd: Sshd, folder: Path, server: str, **options: Any) -> REST:
    return from_url(
        f"rest://{sshd.user}@127.0.0.1/{folder}",
        rsh=sshd.client(),
        server_command=server,
        **{"reconnect_wait": 0.05, **options},
    )


@pytest.mark.parametrize("server", [OURS, BORGSTORES])
def test_a_store_at_the_other_end(sshd: Sshd, tmp_path: Path, server: str) -> None:
    store = at(sshd, tmp_path / "borg", server)
    with pytest.raises(BackendDoesNotExist):
        store.open()
    store.create()
    value = os.urandom(3 << 20)
    with store:
        store.store("packs/aa/one", value)
        store.store("packs/two", b"")
        assert store.load("packs/aa/one") == value
        assert store.load("packs/aa/one", offset=-7, size=3) == value[-7:-4]
        assert sorted(info.name for info in store.list("packs")) == ["aa", "two"]
        store.move("packs/two", "packs/three")
        store.delete("packs/three")
        with pytest.raises(ObjectNotFound):
            store.load("packs/three")
    assert (tmp_path / "borg/packs/aa/one").read_bytes() == value
    store.destroy()
    assert not (tmp_path / "borg/packs").exists()


def test_a_login_that_is_tied_to_one_store(login: Sshd, tmp_path: Path) -> None:
    """As docs/borg.md has it: whatever a client asks for, that store is what it gets."""
    own, others = tmp_path / "own", tmp_path / "others"
    others.mkdir()
    (others / "secret").write_bytes(b"secret")
    tied = f"backupgw borg serve --stdio --path {own} --permissions borgbackup-no-delete"
    login.allow(f'command="{tied}",restrict')
    own.mkdir()  # such a login may not make the store itself
    with at(login, others, "cat /etc/passwd") as store:
        store.store("packs/one", b"first")
        with pytest.raises(ObjectNotFound):
            store.load("secret")
        with pytest.raises(PermissionDenied):
            store.delete("packs/one")
        with pytest.raises(PermissionDenied):
            store.store("packs/one", b"second")
        assert store.load("packs/one") == b"first"
    assert (own / "packs/one").read_bytes() == b"first"
    assert os.listdir(others) == ["secret"]


@pytest.mark.parametrize("server", BOTH)
def test_a_connection_killed_in_the_middle_of_a_value(
    sshd: Sshd, tmp_path: Path, server: str
) -> None:
    value = os.urandom(BIG)
    (tmp_path / "borg").mkdir()
    (tmp_path / "borg/item").write_bytes(value)
    with at(sshd, tmp_path / "borg", server) as store, store.open_reader("item") as reader:
        read = reader.read(1 << 20)
        assert sshd.drop() >= 1
        while part := reader.read(1 << 20):
            read += part
        assert read == value
        assert store.info("item").size == BIG, "and other requests go on"


class Watched:
    """A value on its way out that does something when half of it was taken."""

    def __init__(self, kept: IO[bytes], half: int, then: Callable[[], object]) -> None:
        self._kept = kept
        self._half = half
        self._then: Callable[[], object] | None = then

    def read(self, size: int = -1) -> bytes:
        if self._then is not None and self._kept.tell() >= self._half:
            then, self._then = self._then, None
            then()
        return self._kept.read(size)

    @property
    def done(self) -> bool:
        return self._then is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)


@pytest.mark.parametrize("server", BOTH)
def test_a_connection_killed_in_the_middle_of_a_store(
    sshd: Sshd, tmp_path: Path, server: str
) -> None:
    value = os.urandom(BIG)
    folder = tmp_path / "borg"
    folder.mkdir()
    with at(sshd, folder, server) as store:
        seen: list[bool] = []

        def drop() -> None:
            assert sshd.drop() >= 1
            seen.append(store.info("item").exists)

        writer = cast("RestWriter", store.open_writer("item", size=BIG))
        watched = Watched(writer._kept, BIG // 2, drop)
        writer._kept = cast("Any", watched)
        writer.write(value)
        writer.commit()
        assert watched.done
        assert seen == [False], "half a value is nothing"
        assert store.load("item") == value
    assert (folder / "item").read_bytes() == value


def test_the_wrong_server_is_not_talked_to(sshd: Sshd, tmp_path: Path) -> None:
    store = from_url(
        f"rest://{sshd.user}@127.0.0.1/{tmp_path}/borg", rsh=sshd.client(host_key="other-host")
    )
    with pytest.raises(BackendConnectionError) as caught:
        store.create()
    assert "Host key verification failed" in str(caught.value)
    assert not (tmp_path / "borg").exists()


def test_a_key_that_is_not_let_in(login: Sshd, tmp_path: Path) -> None:
    login.allow('from="203.0.113.1"')
    with pytest.raises(BackendConnectionError, match=r"Permission denied \(publickey\)"):
        at(login, tmp_path / "borg", OURS).open()


def test_a_server_that_is_not_installed(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(BackendConnectionError, match=r"no-such-server.*not found"):
        at(sshd, tmp_path / "borg", "no-such-server").open()
