"""The Store on its own: what programs written for borgstore rely on, and many threads at once."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backupgw.kvstore import Store
from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    NoBackendGiven,
    ObjectNotFound,
    ReadRangeError,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.constants import ROOTNS
from backupgw.kvstore.names import InvalidName
from backupgw.kvstore.store import get_backend

CONFIG = {"config/": {"levels": [0]}, "data/": {"levels": [2]}, "moving/": {"levels": [0, 1]}}


def new_store(backend: Memory | None = None, **options: Any) -> Store:
    return Store(backend=backend or Memory(), config=CONFIG, **options)


@pytest.fixture
def store() -> Iterator[Store]:
    store = new_store()
    store.create()
    with store:
        yield store


def test_life_of_a_store() -> None:
    store = new_store()
    with pytest.raises(BackendDoesNotExist):
        store.open()
    store.create()
    with pytest.raises(BackendAlreadyExists):
        store.create()
    with pytest.raises(BackendMustBeOpen):
        store.close()
    with pytest.raises(BackendMustBeOpen):
        store.load("config/a")
    with store:
        with pytest.raises(BackendMustNotBeOpen):
            store.open()
        with pytest.raises(BackendMustNotBeOpen):
            store.destroy()
    store.destroy()
    with pytest.raises(BackendDoesNotExist):
        store.destroy()


def test_what_makes_no_store_is_said() -> None:
    with pytest.raises(NoBackendGiven):
        Store(config=CONFIG)
    with pytest.raises(BackendURLInvalid, match=r"nosuch://.*host") as caught:
        Store(url="nosuch://me:hush@host", config=CONFIG)
    assert "hush" not in str(caught.value)
    bad: list[Any] = [None, {}, {"a": None}, {"a": {}}, {"a": {"levels": []}}, {"a": {"levels": 0}}]
    bad += [{"a": {"levels": [-1]}}, {"a": {"levels": ["1"]}}, {"a": {"levels": [0], "level": 1}}]
    for config in bad:
        with pytest.raises(ValueError):
            Store(url="memory:", config=config)
    with pytest.raises(ValueError, match="max_concurrency"):
        new_store(max_concurrency=0)


def test_urls_open_backends() -> None:
    assert isinstance(get_backend("memory:"), Memory)
    assert get_backend("nosuch://host") is None
    assert Store(url="memory:", config=CONFIG).url == "memory:"


@pytest.mark.parametrize(
    "name",
    [
        "config/A",
        "config/a b",
        "config/../a",
        "config//a",
        "config/a.tmp",
        "config/a.hid",
        "config/ä",
        "config/" + "x" * 100,
        "config/a\n",
        "config/a\\b",
        "config/.",
        "config/a?",
        "config/",
    ],
)
def test_bad_keys_are_refused(store: Store, name: str) -> None:
    for call in (store.load, store.info, store.delete, store.find, store.hash):
        with pytest.raises(InvalidName):
            call(name)
    with pytest.raises(InvalidName):
        store.store(name, b"")
    with pytest.raises(InvalidName):
        store.move("config/x", name)
    assert [*store.backend.list("")] == []


def test_a_key_may_be_too_long_only_when_nested(store: Store) -> None:
    key = "a" * 93
    store.store(f"config/{key}", b"")
    with pytest.raises(InvalidName, match="longer than 100"):
        store.store(f"data/{key}", b"")


def test_no_namespace_matches() -> None:
    with pytest.raises(KeyError, match="elsewhere/x"):
        new_store().find("elsewhere/x")


def test_keys_shorter_than_their_levels(store: Store) -> None:
    store.store("data/a", b"short")
    assert store.find("data/a") == "data/a/a"
    assert store.load("data/a") == b"short"
    assert [info.name for info in store.list("data")] == ["a"]
    store.set_levels({"data/": [0, 2]})
    assert store.load("data/a") == b"short"


def test_levels_are_made_ahead() -> None:
    store = new_store()
    store.create()
    store.set_levels({"data/": [0, 1], "config/": [0], "": [1]}, create=True)
    with store:
        folders = sorted(info.name for info in store.backend.list("data"))
        assert folders == [f"{number:02x}" for number in range(256)]
        assert store.backend.info("config").directory
        assert store.backend.info("ff").directory
        with pytest.raises(BackendMustNotBeOpen):
            store.create_levels()
    assert [namespace for namespace, _ in store.levels] == ["config/", "data/", ""]


def test_values_of_many_kinds(store: Store) -> None:
    wide = memoryview(bytearray(range(16))).cast("I")
    for value in (b"bytes", bytearray(b"array"), memoryview(b"..view..")[2:6], wide, b""):
        store.store("config/a", value)
        assert store.load("config/a") == bytes(memoryview(value).cast("B"))
    with pytest.raises(ValueError, match="C-contiguous"):
        store.store("config/a", memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError):
        store.store("config/a", "text")  # type: ignore[arg-type]
    assert store.stats["store_volume"] == 5 + 5 + 4 + 16


def test_listing_leaves_out_what_is_no_key(store: Store) -> None:
    store.store("data/0123", b"")
    for name in ("data/01/23/UPPER", "data/01/23/x.tmp", "data/with space/0000", "data/x.hid"):
        store.backend.store(name, b"")
    assert [info.name for info in store.list(ROOTNS)] == ["0123"]


def test_the_store_can_be_used_while_it_is_listed() -> None:
    store = new_store(max_concurrency=1)
    store.create()
    with store:
        for number in range(50):
            store.store(f"data/{number:08x}", b"x")
        names = []
        for info in store.list("data"):
            names.append(info.name)
            store.delete(f"data/{info.name}")
        assert names == [f"{number:08x}" for number in range(50)]
        assert [*store.list("data")] == []


def test_folders_that_vanish_while_listed_are_left_out(store: Store) -> None:
    for key in ("aaaa", "bbbb"):
        store.store(f"data/{key}", b"x")
    listing = store.list("data")
    assert next(listing).name == "aaaa"
    store.delete("data/bbbb")
    store.backend.rmdir("data/bb/bb")
    store.backend.rmdir("data/bb")
    assert [*listing] == []
    with pytest.raises(ObjectNotFound):
        next(store.list("nowhere"))


def test_hashes(store: Store) -> None:
    store.store("config/a", b"value")
    assert store.hash("config/a") == hashlib.sha256(b"value").hexdigest()
    assert store.hash("config/a", "sha512") == hashlib.sha512(b"value").hexdigest()
    for algorithm in ("nonsense", "shake_128"):
        with pytest.raises(ValueError, match=algorithm):
            store.hash("config/a", algorithm)


def test_blake3_without_its_library_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.store("config/a", b"value")
    monkeypatch.setitem(__import__("sys").modules, "blake3", None)
    with pytest.raises(ValueError, match="pip install blake3"):
        store.hash("config/a", "blake3")


def test_blake3_with_its_library(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        """As the real one: called for a digest. Its hash is another's here."""

        blake3 = hashlib.blake2b

    store.store("config/a", b"value" * 1000)
    monkeypatch.setitem(__import__("sys").modules, "blake3", Library)
    assert store.hash("config/a", "blake3") == hashlib.blake2b(b"value" * 1000).hexdigest()


def test_defrag_by_hash_notices_a_source_that_changes() -> None:
    class Changing(Memory):
        def open_reader(self, name: str, **options: Any) -> Any:
            reader = super().open_reader(name, **options)
            self.store(name, b"another value")
            return reader

    store = new_store(Changing())
    store.create()
    with store:
        store.store("config/a", b"first value")
        with pytest.raises(BackendError, match="replaced meanwhile") as caught:
            store.defrag([("a", 0, 11)], algorithm="sha256", namespace="config")
        assert caught.value.retryable
        assert [info.name for info in store.list("config")] == ["a"]


def test_failed_defrag_writes_nothing(store: Store) -> None:
    store.store("config/a", b"0123")
    for target in ("b", None):
        with pytest.raises(ReadRangeError):
            store.defrag([("a", 2, 3)], target=target, algorithm="sha256", namespace="config")
    with pytest.raises(ValueError, match="target or algorithm"):
        store.defrag([("a", 0, 1)], namespace="config")
    assert [info.name for info in store.list("config")] == ["a"]


@pytest.mark.parametrize(
    "source", [("a",), ("a", 0), ("a", 0, -1), ("a", True, 1), ("a", 0, "1"), (1, 0, 1), "abc", 7]
)
def test_what_is_no_source_is_refused(store: Store, source: Any) -> None:
    store.store("config/a", b"0123")
    for call in (store.gather, lambda *a, **k: store.defrag(*a, target="b", **k)):
        with pytest.raises(ValueError):
            call([source], namespace="config")
        with pytest.raises(ValueError, match="namespace"):
            call([("config/a", 0, 1)], namespace="config")


def test_operations_overlap_up_to_the_limit() -> None:
    """As many readers as the limit allows are in the backend at once, and never more."""
    limit = 4
    met = threading.Barrier(limit, timeout=30)
    inside = threading.Semaphore(limit)

    class Meeting(Memory):
        def load(self, name: str, **options: Any) -> bytes:
            assert inside.acquire(blocking=False), "more at once than allowed"
            try:
                met.wait()  # all of them must be here, or this breaks
                return super().load(name, **options)
            finally:
                inside.release()

    store = new_store(Meeting(), max_concurrency=limit)
    store.create()
    with store, ThreadPoolExecutor(3 * limit) as threads:
        store.store("config/a", b"value")
        loads = [threads.submit(store.load, "config/a") for _ in range(3 * limit)]
        assert [load.result(60) for load in loads] == [b"value"] * (3 * limit)


def test_statistics_are_exact_among_threads(store: Store) -> None:
    def work(worker: int) -> None:
        for number in range(100):
            name = f"data/{worker:02x}{number:04x}"
            store.store(name, b"12345")
            store.load(name, size=2)
            store.info(name)
            store.move(name, delete=True)
            store.delete(name, deleted=True)
            store.gather([])

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, worker) for worker in range(8)]:
            done.result(60)
    stats = store.stats
    for operation in ("store", "load", "info", "move", "delete", "gather"):
        assert stats[f"{operation}_calls"] == 800
        assert stats[f"{operation}_time"] > 0
    assert stats["store_volume"] == stats["backend_store_volume"] == 4000
    assert stats["load_volume"] == stats["backend_load_volume"] == 1600
    assert stats["backend_delete_calls"] == 800
    assert stats["backend_gather_calls"] == 0


def test_calls_that_fail_are_not_counted(store: Store) -> None:
    with pytest.raises(ObjectNotFound):
        store.load("config/missing")
    assert store.stats["load_calls"] == 0
    assert store.stats["backend_load_calls"] == 1


def test_every_operation_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "backupgw.kvstore.store"):
        store.store("config/a", b"value")
        store.load("config/a")
        assert [*store.list("config")]
        with pytest.raises(ObjectNotFound):
            store.delete("config/missing")
        store.defrag([("a", 1, 3)], target="b", namespace="config")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("store 'config/a' -> 5 B in ")
    assert messages[1].startswith("load 'config/a' -> 5 B in ")
    assert messages[2:4] == [
        "list 'config' -> 1 items",
        "delete 'config/missing' -> ObjectNotFound",
    ]
    assert messages[4].startswith("defrag 'config' -> 3 B in ")


def test_blocks_of_a_value_come_by_reader() -> None:
    """hash of an algorithm that hashlib lacks streams: no read is larger than a chunk."""
    sizes: list[int] = []

    class Watching(Memory):
        def open_reader(self, name: str, **options: Any) -> Any:
            reader: Reader = super().open_reader(name, **options)
            inner = reader.read

            def read(size: int) -> bytes:
                data = inner(size)
                sizes.append(len(data))
                return data

            reader.read = read  # type: ignore[method-assign]
            return reader

    store = new_store(Watching())
    store.create()
    with store:
        store.store("config/a", bytes(3 << 20))
        store.defrag([("a", 0, 3 << 20)], algorithm="sha256", namespace="config")
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 2 * (3 << 20)
