"""Downloads and listings that break off go on where they were, and never join two values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kvstore.retry.naps import Time, broken

from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader
from backupgw.kvstore.backends.errors import BackendConnectionError, ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.retry_reader import ReplacedMeanwhile


class Broken(Reader):
    """Delivers `good` bytes, then calls `then` and fails."""

    def __init__(self, reader: Reader, good: int, place: BreaksOff) -> None:
        self._reader = reader
        self._good = good
        self._place = place
        self.item_size = reader.item_size
        self.remaining = reader.remaining

    @property
    def version(self) -> str | None:
        return self._reader.version if self._place.versions else None

    def read(self, size: int) -> bytes:
        if not self._good:
            self._place.then()
            raise broken()
        data = self._reader.read(min(size, self._good))
        self._good -= len(data)
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        self._reader.close()


class BreaksOff(Layer):
    """The first reader breaks off after ten bytes."""

    def __init__(self, inner: Backend, *, versions: bool) -> None:
        super().__init__(inner)
        self.versions = versions
        self.opened: list[int] = []
        self.read_again = 0

    def then(self) -> None:
        """What happens while the connection is broken."""

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        reader = super().open_reader(name, offset=offset, size=size)
        self.opened.append(offset)
        return Broken(reader, 10 if len(self.opened) == 1 else 1 << 30, self)


@pytest.fixture(params=["disk", "memory"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "memory":
        return Memory()
    return PosixFS(str(tmp_path / "place"), durability="fast")


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, None), (5, 40), (-50, 30), (-500, None)])
def test_a_download_goes_on_where_it_broke_off(
    inner: Backend, time: Time, versions: bool, offset: int, size: int | None
) -> None:
    value = bytes(range(100))
    place = BreaksOff(inner, versions=versions)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", value)
        got = layer.load("item", offset=offset, size=size)
    start = max(100 + offset, 0) if offset < 0 else offset
    assert got == value[start : 100 if size is None else start + size]
    assert place.opened[1:] == [start + 10 if versions else start], "no byte is fetched twice"


@pytest.mark.parametrize("versions", [True, False])
def test_a_download_never_joins_two_values(inner: Backend, time: Time, versions: bool) -> None:
    place = BreaksOff(inner, versions=versions)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", b"A" * 100)
        place.then = lambda: inner.store("item", b"B" * 100)  # type: ignore[method-assign]
        with layer.open_reader("item") as reader:
            assert reader.read(100) == b"A" * 10
            with pytest.raises(ReplacedMeanwhile):
                reader.read(100)
        place.opened.clear()
        place.then = lambda: inner.store("item", b"C" * 100)  # type: ignore[method-assign]
        assert layer.load("item") == b"C" * 100, "load begins anew by itself"


def test_a_download_of_a_deleted_item_is_told_as_such(time: Time) -> None:
    inner = Memory()
    place = BreaksOff(inner, versions=True)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", b"A" * 100)
        place.then = lambda: inner.delete("item")  # type: ignore[method-assign]
        with layer.open_reader("item") as reader:
            reader.read(100)
            with pytest.raises(ObjectNotFound):
                reader.read(100)


class BadListing(Layer):
    """Listings break off after a while, and come in another order each time."""

    def __init__(self, inner: Backend, after: list[int]) -> None:
        super().__init__(inner)
        self.after = after
        self.lists = 0

    def list(self, name: str) -> Iterator[ItemInfo]:
        self.lists += 1
        good = self.after.pop(0) if self.after else None
        entries = [*super().list(name)]
        random.Random(self.lists).shuffle(entries)
        for number, info in enumerate(entries):
            if number == good:
                raise broken()
            yield info


def test_a_listing_that_broke_off_is_complete_and_doubles_nothing(time: Time) -> None:
    place = BadListing(Memory(), [0, 3000, 1, 1, 4000, 2500])
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        names = {f"item{number}" for number in range(5000)}
        for name in names:
            layer.store(name, b"")
        listed = [info.name for info in layer.list("")]
    assert len(listed) == len(names)
    assert set(listed) == names
    assert place.lists == 7


def test_a_listing_that_never_gets_further_is_given_up(time: Time) -> None:
    place = BadListing(Memory(), [0] * 50)
    place.create()
    with RetryLayer(place, time.schedule(attempts=4)) as layer:
        layer.store("item", b"")
        with pytest.raises(BackendConnectionError):
            next(layer.list(""))
    assert place.lists == 4
