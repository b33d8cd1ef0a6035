"""pyrestserver's StorageProvider, both ways: theirs served by us, our places through it."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.restserver.pyrestserver_provider import FlatProvider

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendURLInvalid,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.names import InvalidName
from backupgw.kvstore.registry import open_place
from backupgw.restserver.provider_place import ProviderPlace
from backupgw.restserver.storage_provider import PlaceProvider, StorageProvider

FLAT = "provider:tests.restserver.pyrestserver_provider:FlatProvider"
BLOB = "ab" * 32


@pytest.fixture
def provider(tmp_path: Path) -> FlatProvider:
    return FlatProvider(str(tmp_path / "flat"))


@pytest.fixture
def theirs(provider: FlatProvider) -> Iterator[Backend]:
    with ProviderPlace(provider, largest=1 << 20) as place:
        yield place


# -- theirs as a place


def test_a_providers_repository_has_restics_layout(provider: FlatProvider, theirs: Backend) -> None:
    theirs.mkdirs(["mine/data", "mine/data/ab", "mine/keys"])
    theirs.store("mine/config", b"config")
    for name in (BLOB, "ac" * 32, "ac" * 31 + "ad"):
        theirs.store(f"mine/data/{name[:2]}/{name}", name.encode())
    theirs.store("mine/keys/k", b"key")
    assert provider.get_blob("mine", "data", BLOB) == BLOB.encode()
    assert provider.get_config("mine") == b"config"
    assert theirs.load(f"mine/data/ab/{BLOB}", offset=-4, size=2) == b"ab"
    assert theirs.load(f"mine/data/ab/{BLOB}", offset=100) == b""
    assert theirs.info("mine/config").size == 6
    assert theirs.info("mine").directory
    assert not theirs.info("other").exists
    assert sorted(info.name for info in theirs.list("mine/data")) == ["ab", "ac"]
    assert len([*theirs.list("mine/data/ac")]) == 2
    assert [info.name for info in theirs.list("mine/keys")] == ["k"]
    theirs.delete(f"mine/data/ab/{BLOB}")
    assert not theirs.info(f"mine/data/ab/{BLOB}").exists
    with pytest.raises(ObjectNotFound):
        theirs.delete(f"mine/data/ab/{BLOB}")


def test_listing_all_packs_lists_a_provider_once(provider: FlatProvider, theirs: Backend) -> None:
    names = [hashlib.sha256(bytes([n])).hexdigest() for n in range(60)]
    for name in names:
        theirs.store(f"mine/data/{name[:2]}/{name}", b"")
    found = [
        info.name
        for folder in theirs.list("mine/data")
        for info in theirs.list(f"mine/data/{folder.name}")
    ]
    assert sorted(found) == sorted(names)
    assert provider.listings == 1
    theirs.store(f"mine/data/ab/{BLOB}", b"later")
    assert BLOB in {info.name for info in theirs.list("mine/data/ab")}, "a second look is a new one"


def test_what_a_provider_answers_is_not_taken_for_nothing(
    provider: FlatProvider, theirs: Backend
) -> None:
    """pyrestserver's own Drime provider answers None when it was refused with 429: that became a
    404, and restic took the pack for lost."""
    theirs.store("mine/keys/k", b"key")
    provider.broken = True
    with pytest.raises(BackendError, match="cannot read it") as caught:
        theirs.load("mine/keys/k")
    assert caught.value.retryable
    assert not isinstance(caught.value, ObjectNotFound)
    with pytest.raises(BackendError) as caught:
        theirs.store("mine/keys/l", b"")
    assert caught.value.retryable
    with pytest.raises(BackendError) as caught:
        theirs.delete("mine/keys/k")
    assert caught.value.retryable


def test_whole_values_have_a_largest_size_and_a_hash(theirs: Backend) -> None:
    assert not theirs.capabilities.streaming
    with pytest.raises(UnsupportedOperation, match="more than the 1048576"):
        theirs.open_writer("mine/keys/k", size=(1 << 20) + 1)
    writer = theirs.open_writer("mine/keys/k")
    with pytest.raises(UnsupportedOperation):
        writer.write(bytes((1 << 20) + 1))
    writer.abort()
    writer = theirs.open_writer("mine/keys/k", expected_hash="0" * 64)
    writer.write(b"other")
    with pytest.raises(ContentMismatch):
        writer.commit()
    writer.abort()
    assert not theirs.info("mine/keys/k").exists
    theirs.store("mine/keys/k", b"old")
    writer = theirs.open_writer("mine/keys/k", if_absent=True)
    writer.write(b"new")
    with pytest.raises(ObjectExists):
        writer.commit()
    writer.abort()
    assert theirs.load("mine/keys/k") == b"old"


def test_one_call_at_a_time(provider: FlatProvider, theirs: Backend) -> None:
    theirs.store("mine/keys/k", b"key")
    threads = [
        threading.Thread(target=lambda: [theirs.load("mine/keys/k") for _ in range(50)])
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.most_calls == 1


def test_what_a_provider_cannot_do_is_said(tmp_path: Path, theirs: Backend) -> None:
    theirs.store("mine/config", b"config")
    for call in (
        lambda: theirs.move("mine/config", "mine/keys/k"),
        lambda: theirs.rmdir("mine/keys"),
        lambda: theirs.delete("mine/config"),
        lambda: theirs.store("mine/keys/deeper/k", b""),
        lambda: theirs.store("elsewhere", b""),
        lambda: [*theirs.list("")],
    ):
        with pytest.raises(UnsupportedOperation):
            call()
    for name in ("mine/../config", "..", "mine/keys/../../x"):
        with pytest.raises(InvalidName):
            theirs.load(name)
    with ProviderPlace(FlatProvider(str(tmp_path), readonly=True)) as readonly:
        for call in (
            lambda: readonly.store("mine/keys/k", b""),
            lambda: readonly.mkdir("mine/keys"),
            lambda: readonly.delete("mine/keys/k"),
        ):
            with pytest.raises(PermissionDenied, match="read-only"):
                call()
    with pytest.raises(BackendMustBeOpen):
        ProviderPlace(FlatProvider(str(tmp_path))).load("mine/config")


def test_mistakes_in_a_providers_url() -> None:
    for url in ("provider:", "provider:os", "provider:os:system;rm", "provider:os:path.x"):
        with pytest.raises(BackendURLInvalid, match="provider:MODULE:CLASS"):
            open_place(url)
    with pytest.raises(BackendDoesNotExist, match="nowhere"):
        open_place("provider:nowhere:Thing")
    with pytest.raises(BackendURLInvalid, match="folder"):
        open_place(FLAT)
    with pytest.raises(TypeError, match="no StorageProvider"):
        ProviderPlace(object())  # type: ignore[arg-type]


def test_what_is_no_answer_is_an_error_of_the_place(
    provider: FlatProvider, theirs: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, answer in {
        "get_config": "text",
        "config_exists": (True, None),
        "list_blobs": [{"nom": "x"}],
    }.items():
        monkeypatch.setattr(provider, method, lambda *_, answer=answer: answer)
    with pytest.raises(BackendError, match=r"mine/config: TypeError: .*bytes-like"):
        theirs.open_reader("mine/config")
    with pytest.raises(BackendError, match="mine/config: TypeError"):
        theirs.info("mine/config")
    with pytest.raises(BackendError, match="mine/keys: KeyError: 'name'"):
        next(theirs.list("mine/keys"))


@pytest.mark.parametrize(
    ("option", "value"), [("largest", "a lot"), ("largest", -1), ("at_once", 0), ("at_once", "x")]
)
def test_an_option_that_cannot_be(tmp_path: Path, option: str, value: object) -> None:
    options: dict[str, Any] = {option: value, "folder": str(tmp_path)}
    with pytest.raises(BackendURLInvalid, match=option):
        open_place(FLAT, **options)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("class P:\n    def is_readonly(self): ...", "is no StorageProvider: it has no c"),
        ("def P(): raise ValueError('no\\nluck')", ": ValueError: no luck"),
        ("class P(: ...", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ],
)
def test_a_class_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, told: str
) -> None:
    (tmp_path / "somebodys.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebodys", raising=False)
    with pytest.raises(BackendError) as caught:
        open_place("provider:somebodys:P")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# -- ours through their interface


def test_a_place_through_the_interface() -> None:
    place = Memory()
    place.create()
    with place:
        provider: StorageProvider = PlaceProvider(place)
        assert not provider.repository_exists("a/b")
        assert provider.config_exists("a/b") == (False, 0)
        assert provider.get_config("a/b") is None
        assert provider.list_blobs("a/b", "data") is None
        assert provider.create_repository("a/b/")
        assert provider.list_blobs("/a/b", "data") == []
        assert provider.save_config("a/b", b"config")
        assert provider.config_exists("a/b") == (True, 6)
        assert provider.repository_exists("a/b")
        assert provider.save_blob("a/b", "data", BLOB, b"blob")
        assert provider.save_blob("a/b", "keys", "k", b"key")
        assert place.load(f"a/b/data/ab/{BLOB}") == b"blob"
        assert provider.list_blobs("a/b", "data") == [{"name": BLOB, "size": 4}]
        assert provider.blob_exists("a/b", "data", BLOB) == (True, 4)
        assert provider.get_blob("a/b", "data", BLOB) == b"blob"
        assert provider.delete_blob("a/b", "data", BLOB)
        assert not provider.delete_blob("a/b", "data", BLOB)
        assert provider.get_blob("a/b", "data", BLOB) is None
        for kind, name in (("data", "../config"), ("x", "y"), ("keys", ".."), ("keys", "")):
            assert provider.get_blob("a/b", kind, name) is None
            assert not provider.save_blob("a/b", kind, name, b"")
            assert provider.blob_exists("a/b", kind, name) == (False, 0)
            assert not provider.delete_blob("a/b", kind, name)
        assert provider.list_blobs("a/b", "x") is None
        readonly = PlaceProvider(place, readonly=True)
        assert readonly.is_readonly()
        assert not readonly.save_config("a/b", b"x")
        assert not readonly.save_blob("a/b", "keys", "k", b"x")
        assert not readonly.delete_blob("a/b", "keys", "k")
        assert not readonly.create_repository("c")
        assert readonly.get_config("a/b") == b"config"


def test_there_and_back_again() -> None:
    """A place of ours through their interface, served as a provider."""
    inner = Memory()
    inner.create()
    with inner, ProviderPlace(PlaceProvider(inner)) as place:
        place.mkdirs(["mine/keys"])
        place.store("mine/config", b"config")
        place.store(f"mine/data/ab/{BLOB}", b"blob")
        assert inner.load(f"mine/data/ab/{BLOB}") == place.load(f"mine/data/ab/{BLOB}") == b"blob"
        assert [info.name for info in place.list("mine/data")] == ["ab"]
