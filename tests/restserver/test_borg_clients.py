"""borgstore's client and ours, each against borgstore's server and ours: every operation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import borgstore.backends.errors as old_errors  # type: ignore[import-untyped]
import pytest
from borgstore.store import Store as OldStore  # type: ignore[import-untyped]
from tests.servers.borg import BorgServer, BorgstoreServer

from backupgw.kvstore.backends import errors as new_errors
from backupgw.kvstore.store import Store as NewStore

CONFIG = {"packs": {"levels": [1]}, "locks": {"levels": [0]}}

Client = Callable[[str], Any]


@pytest.fixture(params=[BorgServer, BorgstoreServer], ids=lambda kind: f"{kind.name}-server")
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BorgServer]:
    with request.param(tmp_path / "store") as running:
        yield running


@pytest.fixture(params=[OldStore, NewStore], ids=["borgstore-client", "our-client"])
def client(request: pytest.FixtureRequest) -> Client:
    return lambda url: request.param(url, config=CONFIG)


@pytest.fixture
def store(server: BorgServer, client: Client) -> Iterator[Any]:
    store = client(server.url)
    store.create()
    with store:
        yield store


def named(kind: str) -> tuple[type[Exception], type[Exception]]:
    return getattr(old_errors, kind), getattr(new_errors, kind)


def test_values_come_back_as_they_were(store: Any, server: BorgServer) -> None:
    values = {f"packs/{number:02x}ff": os.urandom(size) for number, size in enumerate([0, 1, 4097])}
    values["packs/b16"] = os.urandom(3 << 20)
    for name, value in values.items():
        store.store(name, value)
    assert {name: store.load(name) for name in values} == values
    assert (server.folder / "packs/b1/b16").read_bytes() == values["packs/b16"]
    assert {info.name for info in store.list("packs")} == {"00ff", "01ff", "02ff", "b16"}


def test_parts_of_a_value(store: Any) -> None:
    value = bytes(range(256)) * 40
    store.store("packs/0000", value)
    assert store.load("packs/0000", offset=10) == value[10:]
    assert store.load("packs/0000", offset=10, size=20) == value[10:30]
    assert store.load("packs/0000", offset=-30) == value[-30:]
    assert store.load("packs/0000", offset=-30, size=10) == value[-30:-20]
    assert store.load("packs/0000", offset=-9000, size=10) == value[-9000:-8990]
    assert store.load("packs/0000", offset=len(value) - 5, size=100) == value[-5:]
    assert store.load("packs/0000", offset=len(value)) == b""


def test_what_is_known_of_an_item(store: Any) -> None:
    store.store("locks/one", b"12345")
    info = store.info("locks/one")
    assert (info.exists, info.size, info.directory) == (True, 5, False)
    assert info.mtime > 1_600_000_000
    assert store.info("locks").directory
    assert not store.info("locks/two").exists
    assert store.hash("locks/one") == hashlib.sha256(b"12345").hexdigest()
    assert store.quota().keys() == {"limit", "usage"}


def test_items_are_replaced_moved_and_removed(store: Any) -> None:
    store.store("locks/one", b"first")
    store.store("locks/one", b"second")
    assert store.load("locks/one") == b"second"
    store.move("locks/one", "locks/two")
    assert not store.info("locks/one").exists
    assert store.load("locks/two") == b"second"
    store.move("locks/two", delete=True)
    assert [info.name for info in store.list("locks")] == []
    assert [info.name for info in store.list("locks", deleted=True)] == ["two"]
    store.move("locks/two", undelete=True)
    store.delete("locks/two")
    with pytest.raises(named("ObjectNotFound")):
        store.load("locks/two")
    with pytest.raises(named("ObjectNotFound")):
        store.delete("locks/two")


def test_parts_of_several_items_are_joined(store: Any) -> None:
    store.store("packs/aaaa", b"0123456789")
    store.store("packs/bbbb", b"abcdefghij")
    sources = [("aaaa", 2, 3), ("bbbb", 0, 4), ("aaaa", 9, 1)]
    assert store.gather(sources, namespace="packs") == b"234abcd9"
    with pytest.raises(named("ReadRangeError")):
        store.gather([("aaaa", 8, 3)], namespace="packs")
    name = store.defrag(sources, namespace="packs", algorithm="sha256")
    assert name == hashlib.sha256(b"234abcd9").hexdigest()
    assert store.load(f"packs/{name}") == b"234abcd9"
    assert store.defrag(sources, namespace="packs", target="cccc") == "cccc"
    assert store.load("packs/cccc") == b"234abcd9"


def test_the_store_as_a_whole(server: BorgServer, client: Client) -> None:
    store = client(server.url)
    with pytest.raises(named("BackendDoesNotExist")), store:
        store.store("locks/one", b"")
    store.create()
    with store:
        store.store("locks/one", b"x")
        with pytest.raises(named("BackendMustNotBeOpen")):
            store.create()
    with pytest.raises(named("BackendAlreadyExists")):
        client(server.url).create()
    store.destroy()
    assert not server.folder.exists()
    with pytest.raises(named("BackendDoesNotExist")):
        store.destroy()


def test_a_missing_namespace_is_told(store: Any) -> None:
    with pytest.raises(named("ObjectNotFound")):
        list(store.list("packs"))
