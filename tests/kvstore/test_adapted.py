"""Backend objects written for borgstore work beneath our Store and as our places."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.kvstore import adapted_places
from tests.kvstore.adapted_places import InADictionary

from backupgw.kvstore.backends.adapted import Adapted, as_backend
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    ObjectExists,
    ObjectNotFound,
    StorageFull,
    UnsupportedOperation,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.store import Store

BEYOND_IT = {
    # `test_names_beyond_borgstores_rules_are_refused` says what happens instead.
    "naming.decent_names_come_back",
    "naming.case_is_kept_apart",
    "naming.deep_paths_work",
    # It sorts a folder before it yields the first entry.
    "listing.list_streams",
}
"""What borgstore's PosixFS cannot do, whoever asks it."""


@pytest.fixture(
    scope="module",
    params=["on_disk", pytest.param("several_at_once", marks=pytest.mark.soak)],
)
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    factory = getattr(adapted_places, request.param)
    with Subject(partial(factory, str(tmp_path_factory.mktemp("adapted"))), soak=SOAK) as subject:
        yield subject


def test_what_is_left_out_exists() -> None:
    assert {str(check) for check in checks} >= BEYOND_IT


@pytest.mark.parametrize(
    "check", [check for check in checks if str(check) not in BEYOND_IT], ids=str
)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


@pytest.mark.parametrize("name", ["with space", "Upper", "back\\slash", "é", "x" * 200, "a.tmp"])
def test_names_beyond_borgstores_rules_are_refused(tmp_path: Path, name: str) -> None:
    place = adapted_places.on_disk(str(tmp_path))
    place.create()
    with place:
        for call in (lambda: place.store(name, b""), lambda: place.load(name)):
            with pytest.raises(UnsupportedOperation, match="refused by borgstore's rules"):
                call()
        assert list(place.list("")) == []


# -- beneath a Store


@pytest.fixture
def somebodys() -> InADictionary:
    return InADictionary()


def test_a_store_takes_somebodys_object(somebodys: InADictionary) -> None:
    store = Store(backend=somebodys, config={"data": {"levels": [1]}})
    with pytest.raises(BackendDoesNotExist, match="nobody has made it"):
        store.open()
    store.create()
    big = os.urandom(5 << 20)
    with store:
        store.store("data/0000", b"value")
        store.store("data/1111", memoryview(big))
        assert somebodys.items is not None
        assert sorted(somebodys.items) == ["data/00/0000", "data/11/1111"]
        assert store.load("data/1111") == big
        assert store.load("data/1111", offset=-5, size=3) == big[-5:-2]
        assert store.load("data/0000", offset=1, size=100) == b"alue"
        assert store.hash("data/1111") == hashlib.sha256(big).hexdigest()
        assert sorted(info.name for info in store.list("data")) == ["0000", "1111"]
        store.move("data/0000", delete=True)
        assert [info.name for info in store.list("data", deleted=True)] == ["0000"]
        assert store.gather([("1111", 0, 4), ("1111", 8, 2)], namespace="data") == (
            big[:4] + big[8:10]
        )
        store.delete("data/1111")
        with pytest.raises(ObjectNotFound):
            store.load("data/1111")
        assert store.quota() == {"limit": -1, "usage": -1}
    with pytest.raises(BackendMustBeOpen):
        store.load("data/0000")
    store.destroy()
    assert somebodys.items is None


def test_a_cache_may_be_somebodys_object(somebodys: InADictionary) -> None:
    behind = InADictionary()
    config = {"data": {"levels": [0], "cache": "writethrough"}}
    store = Store(backend=behind, cache_backend=somebodys, config=config)
    store.create()
    with store:
        store.store("data/item", b"value")
        assert store.load("data/item") == b"value"
        assert somebodys.items


def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(TypeError, match="a PosixPath is no backend: it has no method create"):
        Store(backend=Path("x"))  # type: ignore[arg-type]
    memory = Memory()
    assert as_backend(memory) is memory


def test_threads_take_turns(somebodys: InADictionary) -> None:
    """An object of borgstore's world has never seen two calls at a time."""
    place = Adapted(somebodys)
    place.create()
    with place:
        place.store("item", b"x" * 10_000)
        together = threading.Barrier(8)

        def work() -> None:
            together.wait()
            for _ in range(200):
                place.load("item")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert somebodys.most_calls == 1


# -- as a place


def test_a_value_has_a_largest_size(somebodys: InADictionary) -> None:
    place = Adapted(somebodys, largest=1000)
    place.create()
    with place:
        place.store("fits", bytes(1000))
        assert place.load("fits") == bytes(1000)
        for call in (
            lambda: place.store("large", bytes(1001)),
            lambda: place.open_writer("large", size=1001),
        ):
            with pytest.raises(UnsupportedOperation, match="1001 bytes are more than the 1000"):
                call()
        writer = place.open_writer("large")
        writer.write(bytes(1000))
        with pytest.raises(UnsupportedOperation):
            writer.write(b"x")
        writer.abort()
        assert not place.info("large").exists
        somebodys.store("foreign", bytes(1001))
        with pytest.raises(UnsupportedOperation, match="1001 bytes are more"):
            place.open_reader("foreign")
        with place.open_reader("foreign", offset=500, size=10) as reader:
            assert (reader.read(100), reader.item_size) == (bytes(10), 1001)


def test_create_if_absent_keeps_what_is_there(somebodys: InADictionary) -> None:
    place = Adapted(somebodys)
    place.create()
    with place:
        place.store("item", b"old")
        writer = place.open_writer("item", if_absent=True)
        writer.write(b"new")
        with pytest.raises(ObjectExists):
            writer.commit()
        place.move_if_absent("item", "elsewhere")
        writer.commit()
        assert (place.load("item"), place.load("elsewhere")) == (b"new", b"old")


def test_a_full_place_is_told_as_full(somebodys: InADictionary) -> None:
    place = Adapted(somebodys)
    place.create()
    somebodys.room = 10
    with place, pytest.raises(StorageFull, match="No space left") as caught:
        place.store("item", bytes(11))
    assert isinstance(caught.value.__cause__, OSError)


class QuotaExceeded(Exception):
    """By its name one of borgstore's."""


class Derived(QuotaExceeded):
    """A backend's own kind of it."""


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (Derived("over"), "QuotaExceeded"),
        (ConnectionResetError("reset"), "BackendConnectionError"),
        (TimeoutError("late"), "BackendConnectionError"),
        (OSError(errno.EACCES, "no"), "PermissionDenied"),
        (OSError(errno.EIO, "bad disk"), "BackendError"),
        (KeyError("what"), "BackendError"),
    ],
)
def test_no_foreign_exception_leaves(
    somebodys: InADictionary, monkeypatch: pytest.MonkeyPatch, raised: Exception, becomes: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    place = Adapted(somebodys)
    place.create()
    with place:
        place.store("item", b"x")
        for method in ("info", "load", "store", "delete", "move", "list", "mkdir"):
            monkeypatch.setattr(somebodys, method, fail)
        calls = (
            lambda: place.info("item"),
            lambda: place.load("item"),
            lambda: place.store("item", b""),
            lambda: place.delete("item"),
            lambda: place.move("item", "other"),
            lambda: next(place.list("")),
            lambda: place.mkdir("folder"),
        )
        for call in calls:
            with pytest.raises(BackendError) as caught:
                call()
            assert type(caught.value).__name__ == becomes
            assert caught.value.__cause__ is raised
            assert caught.value.retryable == (becomes == "BackendConnectionError")
