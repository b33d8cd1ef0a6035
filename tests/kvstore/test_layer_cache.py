"""A cache in front of a place: faster where it helps, and never a reason for anything to fail."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore.failing_place import FailingPlace, gone

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.errors import BackendConnectionError, ObjectNotFound, StorageFull
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.cache import CacheLayer, from_options
from backupgw.kvstore.layers.cache_entries import BLOCK, entry_size, item_size
from backupgw.kvstore.layers.cache_policy import CacheMode, CachePolicy
from backupgw.kvstore.layers.options import OptionInvalid

VALUE = bytes(range(256)) * 1000


class CountingMemory(Memory):
    """Counts the readers that it was asked for."""

    reads = 0

    def open_reader(self, name: str, **options: Any) -> Any:
        self.reads += 1
        return super().open_reader(name, **options)


def cached(
    place: Memory, cache: Any, *, mode: CacheMode = CacheMode.C_WRITETHROUGH, **limits: Any
) -> CacheLayer:
    largest = limits.pop("largest", 1 << 30)
    only = limits.pop("only", None)
    policy = CachePolicy(mode, limits.pop("max_age", None), limits.pop("size", None))
    place.create()
    return CacheLayer(place, cache, policy, largest=largest, only=only)


def drained(reader: Reader) -> bytes:
    with reader:
        return b"".join(iter(lambda: reader.read(70_000), b""))


def test_the_second_read_costs_the_place_nothing(tmp_path: Path) -> None:
    place = CountingMemory()
    with cached(place, PosixFS(str(tmp_path))) as layer:
        place.store("folder/item", VALUE)
        assert layer.load("folder/item", offset=100_000, size=10) == VALUE[100_000:100_010]
        before = place.reads
        assert layer.load("folder/item") == VALUE
        assert layer.load("folder/item", offset=-5) == VALUE[-5:]
        assert place.reads == before
        stats = layer.statistics.as_dict()
        assert (stats["cache_hits"], stats["cache_misses"]) == (2, 1)


def test_written_items_are_in_the_cache(tmp_path: Path) -> None:
    place = CountingMemory()
    with cached(place, PosixFS(str(tmp_path))) as layer:
        layer.store("item", VALUE)
        layer.store("item", VALUE[::-1])
        assert layer.load("item") == VALUE[::-1]
        assert place.reads == 0


def test_a_hash_tells_of_the_place_and_not_of_the_cache(tmp_path: Path) -> None:
    place = CountingMemory()
    with cached(place, PosixFS(str(tmp_path))) as layer:
        layer.store("item", VALUE)
        place.store("item", b"damaged")
        assert layer.load("item") == VALUE
        assert layer.hash("item") == hashlib.sha256(b"damaged").hexdigest()


def test_mirror_mode_always_reads_the_place(tmp_path: Path) -> None:
    place = CountingMemory()
    cache = PosixFS(str(tmp_path))
    with cached(place, cache, mode=CacheMode.C_MIRROR) as layer:
        place.store("item", b"one")
        assert layer.load("item") == b"one"
        place.store("item", b"two")
        assert layer.load("item") == b"two"
        assert cache.info("item").exists


@pytest.mark.parametrize("where", [0, 70_000, len(VALUE) - 1, len(VALUE) + 1, -1, -20])
def test_a_damaged_entry_reads_as_none(tmp_path: Path, where: int) -> None:
    """A bit turned over in the value, in the checksums or in the ending is noticed, and mended."""
    place = CountingMemory()
    with cached(place, PosixFS(str(tmp_path))) as layer:
        layer.store("item", VALUE)
        entry = tmp_path / "item"
        content = bytearray(entry.read_bytes())
        content[where] ^= 4
        entry.write_bytes(content)
        assert drained(layer.open_reader("item")) == VALUE
        assert place.reads > 0
        assert layer.load("item") == VALUE
        place.reads = 0
        assert layer.load("item") == VALUE
        assert place.reads == 0


@pytest.mark.parametrize("size", [0, 1, 30, 100_000])
def test_a_cut_entry_reads_as_none(tmp_path: Path, size: int) -> None:
    with cached(CountingMemory(), PosixFS(str(tmp_path))) as layer:
        layer.store("item", VALUE)
        (tmp_path / "item").write_bytes((tmp_path / "item").read_bytes()[:size])
        assert layer.load("item") == VALUE


def test_entry_sizes_can_be_told_back() -> None:
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK, 10 * BLOCK + 7):
        assert item_size(entry_size(size)) == size


@pytest.mark.parametrize("trouble", ["commit", "everything", "reading"])
def test_a_broken_cache_fails_nothing(
    tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FailingPlace(PosixFS(str(tmp_path)))
    with cached(Memory(), cache) as layer:
        layer.store("before", VALUE)
        if trouble == "commit":
            cache.commit_error = lambda: StorageFull("no room")
        elif trouble == "everything":
            cache.error = gone
        else:
            cache.break_read_after = 10
        with caplog.at_level(logging.WARNING):
            for number in range(20):
                layer.store(f"item{number}", VALUE)
                assert layer.load(f"item{number}") == VALUE
                assert layer.load("before") == VALUE
                layer.move(f"item{number}", "moved")
                assert layer.load("moved") == VALUE
            layer.delete("moved")
        with pytest.raises(ObjectNotFound):
            layer.load("moved")
        cache.error = cache.commit_error = cache.break_read_after = None
        told = [record for record in caplog.records if "cache" in record.getMessage()]
        assert 1 <= len(told) <= 3, "a broken cache is told of, but not each time"
        assert layer.statistics.as_dict()["cache_errors"] > 0


def test_a_cache_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    with cached(Memory(), PosixFS(str(tmp_path / "file" / "cache"))) as layer:
        layer.store("item", VALUE)
        assert layer.load("item") == VALUE


def test_a_place_that_fails_still_fails(tmp_path: Path) -> None:
    """What only the place can answer raises, and a value that broke off is not kept."""
    place = FailingPlace(Memory())
    place.create()
    layer = CacheLayer(
        place, PosixFS(str(tmp_path)), CachePolicy(CacheMode.C_WRITETHROUGH, None, None)
    )
    with layer:
        place.inner.store("item", VALUE)
        place.break_read_after = 1000
        with pytest.raises(BackendConnectionError):
            layer.load("item")
        place.break_read_after = None
        assert layer.load("item") == VALUE


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("item*"))


def test_it_never_grows_beyond_its_size(tmp_path: Path) -> None:
    with cached(Memory(), PosixFS(str(tmp_path)), size=1_000_000) as layer:
        for number in range(60):
            layer.store(f"item{number}", bytes(50_000))
            assert bytes_in(tmp_path) <= 1_000_000 * 1.01
        names = {path.name for path in tmp_path.glob("item*")}
        assert names == {f"item{number}" for number in range(40, 60)}, "the oldest go first"
    with CacheLayer(
        layer.inner, PosixFS(str(tmp_path)), CachePolicy(CacheMode.C_WRITETHROUGH, None, 100_000)
    ):
        assert bytes_in(tmp_path) <= 100_000 * 1.01, "a smaller limit holds from the opening on"


def test_what_is_used_stays(tmp_path: Path) -> None:
    with cached(Memory(), PosixFS(str(tmp_path)), size=300_000) as layer:
        for number in range(40):
            layer.store(f"item{number}", bytes(50_000))
            layer.load("item0")
        assert (tmp_path / "item0").exists()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    import os

    with cached(Memory(), PosixFS(str(tmp_path)), max_age=1000.0) as layer:
        layer.store("item_old", b"x")
        layer.store("item_new", b"x")
    os.utime(tmp_path / "item_old", (1_000_000, 1_000_000))
    with layer:
        assert [path.name for path in tmp_path.glob("item*")] == ["item_new"]


def test_large_items_and_other_names_pass_by(tmp_path: Path) -> None:
    with cached(Memory(), PosixFS(str(tmp_path)), largest=1000, only=["*/data/*"]) as layer:
        layer.store("repo/data/small", b"x")
        layer.store("repo/data/large", bytes(1001))
        layer.store("repo/locks/lock", b"x")
        for name in ("repo/data/small", "repo/data/large", "repo/locks/lock"):
            layer.load(name)
        kept = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert [name for name in kept if not name.startswith(".")] == ["small"]


def test_readers_and_writers_of_one_name_never_see_an_old_value(tmp_path: Path) -> None:
    """After a store has returned nobody reads what was there before it."""
    with (
        cached(Memory(), PosixFS(str(tmp_path), durability="fast"), size=10_000) as layer,
        ThreadPoolExecutor(6) as threads,
    ):
        layer.store("item", b"0")

        def look() -> None:
            for _ in range(200):
                before = int(layer.inner.load("item"))
                assert int(layer.load("item")) >= before

        looking = [threads.submit(look) for _ in range(5)]
        for number in range(200):
            layer.store("item", b"%d" % number)
        for done in looking:
            done.result(120)


def _use(folder: str, number: int) -> int:
    layer = from_options(
        PosixFS(f"{folder}/place", durability="fast"), size=20_000, folder=f"{folder}/cache"
    )
    wrong = 0
    with layer:
        for turn in range(150):
            name = f"item{turn % 12}"
            layer.store(f"own{number}", b"%d.%d" % (number, turn))
            wrong += layer.load(f"own{number}") != b"%d.%d" % (number, turn)
            value = layer.load(name)
            wrong += len(set(value)) > 1
            layer.store(name, b"%d" % number * (1000 + 100 * (turn % 12)))
    return wrong


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    place = PosixFS(str(tmp_path / "place"), durability="fast")
    place.create()
    with place:
        for number in range(12):
            place.store(f"item{number}", b"x" * 1000)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(_use, [(str(tmp_path), number) for number in range(3)]) == [0, 0, 0]
    with (
        place,
        from_options(
            PosixFS(str(tmp_path / "place")), size=20_000, folder=str(tmp_path / "cache")
        ) as layer,
    ):
        assert bytes_in(tmp_path / "cache") <= 21_000
        for number in range(12):
            assert layer.load(f"item{number}") == place.load(f"item{number}")


def test_destroying_the_place_leaves_what_is_not_the_caches(tmp_path: Path) -> None:
    layer = cached(Memory(), PosixFS(str(tmp_path)))
    with layer:
        layer.store("item", b"x")
    layer.destroy()
    assert not (tmp_path / "item").exists()


def test_options(tmp_path: Path) -> None:
    layer = from_options(Memory(), state_folder=str(tmp_path), size="10 MB", max_age="30 days")
    assert isinstance(layer, CacheLayer)
    for options, wrong in (
        ({"mode": "sometimes"}, "mode"),
        ({"size": "much"}, "size"),
        ({"folder": "relative"}, "folder"),
        ({"only": "*"}, "only"),
        ({"max_age": -1}, "max_age"),
    ):
        with pytest.raises(OptionInvalid) as caught:
            from_options(Memory(), **{"folder": str(tmp_path), **options})  # type: ignore[arg-type]
        assert caught.value.option == wrong
    with pytest.raises(OptionInvalid, match="folder"):
        from_options(Memory())
