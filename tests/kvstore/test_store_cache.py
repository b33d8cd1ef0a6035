"""The Store's cache: what borgstore's users wish it did, and the demonstration."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore import Store
from backupgw.kvstore.__main__ import main
from backupgw.kvstore.backends.memory import Memory

CONFIG: dict[str, dict[str, Any]] = {
    "packs/": {"levels": [1], "cache": "writethrough", "size": 200_000},
    "config/": {"levels": [0]},
}


def new_store(tmp_path: Path, **options: Any) -> Store:
    return Store(
        f"file://{tmp_path}/place", config=CONFIG, cache_url=f"file://{tmp_path}/cache", **options
    )


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "packs").rglob("*") if path.is_file())


def test_a_store_works_when_its_cache_does_not(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.create()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_bytes(b"not a folder")
    with store:
        assert store.stats["cache_disabled"]
        store.store("packs/0011", b"value")
        assert store.load("packs/0011") == b"value"
        store.move("packs/0011", delete=True)
        store.delete("packs/0011", deleted=True)
        store.cache_invalidate("")
    store.destroy()


def test_damaged_entries_are_noticed(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.create()
    with store:
        store.store("packs/0011", b"value" * 10_000)
        (entry,) = (path for path in (tmp_path / "cache").rglob("0011"))
        entry.write_bytes(b"V" + entry.read_bytes()[1:])
        assert store.load("packs/0011") == b"value" * 10_000
        assert store.stats["cache_errors"] == 1
        assert store.load("packs/0011", offset=-5) == b"value"
        assert store.stats["cache_hits"] == 1


def test_many_threads_share_a_cached_store(tmp_path: Path) -> None:
    """Evicting all the while; nobody reads a value that was replaced before they asked."""
    store = new_store(tmp_path)
    store.create()

    def work(worker: int) -> None:
        for turn in range(60):
            name = f"packs/{worker:02x}{turn % 7:02x}"
            value = b"%d.%d " % (worker, turn) * 2000
            store.store(name, value)
            assert store.load(name) == value
            assert store.load(name, offset=-4) == value[-4:]
            if turn % 5 == 0:
                store.delete(name)

    with store, ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, worker) for worker in range(8)]:
            done.result(120)
        assert bytes_in(tmp_path / "cache") <= 201_000


def test_loads_of_different_items_overlap(tmp_path: Path) -> None:
    """A miss of one item does not keep the others waiting."""
    meet = threading.Barrier(4, timeout=30)

    class Meeting(Memory):
        def load(self, name: str, **options: Any) -> bytes:
            meet.wait()
            return super().load(name, **options)

    place = Meeting()
    store = Store(backend=place, config=CONFIG, cache_backend=Memory())
    store.create()
    with store, ThreadPoolExecutor(4) as threads:
        for number in range(4):
            place.store(f"packs/0{number}/0{number}", b"value")
        loads = [threads.submit(store.load, f"packs/0{number}") for number in range(4)]
        assert [load.result(60) for load in loads] == [b"value"] * 4


def test_a_cache_left_by_another_store_is_not_believed(tmp_path: Path) -> None:
    first = new_store(tmp_path)
    first.create()
    with first:
        first.store("packs/0011", b"the first store's")
    (tmp_path / "place").rename(tmp_path / "elsewhere")
    second = new_store(tmp_path)
    second.create()
    with second:
        second.backend.store("packs/00/0011", b"the second store's")
        assert second.load("packs/0011") == b"the second store's"


def test_destroying_a_store_leaves_what_others_keep_beside_its_cache(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.create()
    with store:
        store.store("packs/0011", b"value")
    (tmp_path / "cache" / "thesis.txt").write_bytes(b"years of work")
    store.destroy()
    assert [path.name for path in (tmp_path / "cache").glob("[!.]*")] == ["thesis.txt"]
    (tmp_path / "cache" / "thesis.txt").unlink()
    store.create()
    store.destroy()
    assert not (tmp_path / "cache").exists()


def test_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"file://{tmp_path}/demonstration"
    assert main([url], ask=lambda _: "no") == 0
    assert "deleted: ['" in capsys.readouterr().out
    assert main([url], ask=lambda _: "DESTROY") == 1
    assert "left alone" in capsys.readouterr().out
    assert main(["memory:"], ask=lambda _: "DESTROY") == 0
    assert "removed" in capsys.readouterr().out
    assert main(["nosuch:x"]) == 1
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "Usage" in capsys.readouterr().out
