"""Bodies that break off are asked for again, in the same value or not at all."""

from __future__ import annotations

import random

import pytest

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.body_reader import BodyReader, NoBytes, open_steadily
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    ReadRangeError,
)
from backupgw.kvstore.layers.retry_reader import ReplacedMeanwhile
from backupgw.kvstore.layers.retry_schedule import Schedule

VALUE = random.Random(1).randbytes(300_000)
QUICK = Schedule(attempts=3, deadline=20, first=0.001, longest=0.002)


class Body:
    """A body that ends, or breaks, after so many bytes."""

    def __init__(self, data: bytes, *, breaks: bool) -> None:
        self.data = data
        self.breaks = breaks
        self.closed = False

    def read(self, size: int, /) -> bytes:
        if not self.data and self.breaks:
            raise ConnectionResetError("reset by peer")
        data, self.data = self.data[:size], self.data[size:]
        return data

    def close(self) -> None:
        self.closed = True


class Place:
    """One item. `cuts` says after how many bytes each answer ends; the last one is whole."""

    def __init__(self, *cuts: int, breaks: bool = True) -> None:
        self.cuts = [*cuts]
        self.breaks = breaks
        self.version = "v1"
        self.asked: list[tuple[int, int | None, str | None]] = []
        self.bodies: list[Body] = []

    def open_range(self, offset: int, size: int | None, version: str | None) -> Reader:
        self.asked.append((offset, size, version))
        if version is not None and version != self.version:
            raise ReplacedMeanwhile("another value")
        data = VALUE[offset:] if size is None else VALUE[offset:][:size]
        cut = self.cuts.pop(0) if self.cuts else len(data)
        if cut < 0:
            raise BackendConnectionError("refused")
        self.bodies.append(Body(data[:cut], breaks=self.breaks and cut < len(data)))
        return BodyReader(
            "item",
            self.bodies[-1],
            item_size=len(VALUE),
            remaining=len(data),
            version=self.version,
            errors=(OSError,),
            translate=lambda error: BackendConnectionError(f"broke: {error}"),
        )


def drain(reader: Reader) -> bytes:
    with reader:
        return b"".join(iter(lambda: reader.read(7000), b""))


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("cuts", [(), (0,), (100_000, 5, 7000), (-1, 1, -1, 2)])
def test_goes_on_where_it_broke_off(cuts: tuple[int, ...], breaks: bool) -> None:
    place = Place(*cuts, breaks=breaks)
    reader = open_steadily("item", place.open_range, offset=0, size=None, schedule=QUICK)
    assert drain(reader) == VALUE
    assert all(body.closed for body in place.bodies)
    at = 0
    for offset, _, _ in place.asked:
        assert offset >= at
        at = offset


@pytest.mark.parametrize(("offset", "size"), [(5, None), (5, 100_000), (-50_000, None)])
def test_a_range_goes_on_too(offset: int, size: int | None) -> None:
    place = Place(30_000)
    reader = open_steadily("item", place.open_range, offset=offset, size=size, schedule=QUICK)
    expected = VALUE[offset:] if size is None else VALUE[offset:][:size]
    assert reader.remaining == len(expected)
    assert drain(reader) == expected
    start = offset % len(VALUE)
    assert place.asked[1] == (start + 28_000 + 2000, len(expected) - 30_000, "v1")


def test_never_joins_two_values() -> None:
    place = Place(30_000)
    reader = open_steadily("item", place.open_range, offset=0, size=None, schedule=QUICK)
    reader.read(7000)
    place.version = "v2"
    with pytest.raises(ReplacedMeanwhile):
        drain(reader)


def test_a_body_that_stays_short_is_an_error() -> None:
    place = Place(100, *[0] * 5, breaks=False)
    reader = open_steadily("item", place.open_range, offset=0, size=None, schedule=QUICK)
    with pytest.raises(ReadRangeError):
        drain(reader)
    assert len(place.asked) == 3


def test_what_waiting_cannot_help_is_asked_once() -> None:
    asked = []

    def missing(*_: object) -> Reader:
        asked.append(1)
        raise ObjectNotFound("item")

    with pytest.raises(ObjectNotFound):
        open_steadily("item", missing, offset=0, size=None, schedule=QUICK)
    assert asked == [1]


def test_a_small_rest_is_read_so_that_the_connection_can_be_used_again() -> None:
    for size, left in ((250_000, 0), (100_000, 200_000)):
        place = Place()
        reader = open_steadily("item", place.open_range, offset=0, size=None, schedule=QUICK)
        while reader.remaining > len(VALUE) - size:
            reader.read(1000)
        reader.close()
        reader.close()
        assert len(place.bodies[0].data) == left
        with pytest.raises(BackendError):
            reader.read(1)


def test_nothing_is_read_of_nothing() -> None:
    with NoBytes(5, "v1") as reader:
        assert (reader.read(9), reader.remaining, reader.item_size) == (b"", 0, 5)
