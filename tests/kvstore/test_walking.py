"""Going through a tree: everything once, in memory that does not grow with it."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.registry import open_place
from backupgw.kvstore.walking import MOST_OPEN, walk


@pytest.fixture
def place() -> Iterator[Memory]:
    memory = Memory()
    memory.create()
    with memory:
        yield memory


class Listings(Layer):
    """Counts the listings that are open, and makes up entries."""

    def __init__(self, inner: Memory, *, entries: int = 0) -> None:
        super().__init__(inner)
        self.entries = entries
        self.open_now = self.most_open = 0
        self.broken: set[str] = set()
        self.vanishing: set[str] = set()

    def list(self, name: str) -> Iterator[ItemInfo]:
        if name in self.broken:
            raise BackendError("no right to list")
        if name in self.vanishing:
            raise ObjectNotFound(name)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield from self.inner.list(name)
            for number in range(self.entries):
                yield ItemInfo(f"{number:08}", exists=True, size=1, directory=False)
        finally:
            self.open_now -= 1


def test_everything_is_told_once_and_folders_before_and_after(place: Memory) -> None:
    for name in ("a/b/1", "a/2", "3"):
        place.store(name, b"x")
    place.mkdir("a/empty")
    told = [(found.path, found.left) for found in walk(place)]
    assert sorted(told) == [
        ("3", False),
        ("a", False),
        ("a", True),
        ("a/2", False),
        ("a/b", False),
        ("a/b", True),
        ("a/b/1", False),
        ("a/empty", False),
        ("a/empty", True),
    ]
    assert told.index(("a", False)) < told.index(("a/b/1", False)) < told.index(("a/b", True))
    assert told.index(("a/b", True)) < told.index(("a", True))
    entries = {found.path: found.entries for found in walk(place) if found.left}
    assert entries == {"a": 3, "a/b": 1, "a/empty": 0}
    assert [found.path for found in walk(place, "a/b")] == ["a/b/1"]


def test_a_missing_folder_is_an_error_and_a_vanished_one_is_empty(place: Memory) -> None:
    place.store("a/1", b"x")
    with pytest.raises(ObjectNotFound):
        list(walk(place, "none"))
    listings = Listings(place)
    listings.vanishing = {"a"}
    assert [(found.path, found.entries) for found in walk(listings) if found.left] == [("a", 0)]


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_goes_on(place: Memory) -> None:
    place.store("a/1", b"x")
    place.store("b/1", b"x")
    listings = Listings(place)
    listings.broken = {"a"}
    told: list[str] = []
    found = [f.path for f in walk(listings, on_error=lambda folder, _: told.append(folder))]
    assert told == ["a"]
    assert "b/1" in found
    with pytest.raises(BackendError):
        list(walk(listings))
    assert listings.open_now == 0


def test_deep_trees_keep_few_listings_open(place: Memory) -> None:
    depth = 1500
    place.store("/".join(["d"] * depth + ["item"]), b"x")
    listings = Listings(place)
    found = list(walk(listings))
    assert sum(not f.left for f in found) == depth + 1
    assert listings.most_open <= MOST_OPEN + 1
    assert listings.open_now == 0


def test_deep_trees_on_disk_need_few_descriptors(tmp_path: Path) -> None:
    disk = open_place(f"file://{tmp_path}/place", durability="fast")
    disk.create()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with disk:
        disk.store("/".join(["d"] * 200 + ["item"]), b"x")
        # Beside what is open already, be it of other tests.
        room = len(os.listdir("/proc/self/fd")) + 210
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, limits[1]))
        try:
            assert sum(not f.info.directory for f in walk(disk)) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("entries", [50_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_entries(place: Memory, entries: int) -> None:
    place.mkdir("a")
    listings = Listings(place, entries=entries)
    tracemalloc.start()
    try:
        count = sum(1 for found in walk(listings) if not found.info.directory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2 * entries
    assert peak < 200_000
