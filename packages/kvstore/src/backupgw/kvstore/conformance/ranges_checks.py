"""Reading from any offset, any size."""

from __future__ import annotations

import os
import random

from ..backends.base import CHUNK, Reader
from ..backends.errors import ObjectNotFound
from . import values
from .subject import Ground
from .suite import check
from .verdicts import Violation, expect, require

_SMALL = 11
_OFFSETS = (0, 1, 5, 10, 11, 12, 1000, -1, -5, -10, -11, -12, -1000)
_LENGTHS = (None, 0, 1, 5, 10, 11, 12, 1000)


def _expected(value: bytes, offset: int, size: int | None) -> bytes:
    start = max(0, len(value) + offset) if offset < 0 else offset
    return value[start:] if size is None else value[start : start + size]


def _drain(reader: Reader, piece: int) -> bytes:
    parts = []
    while part := reader.read(piece):
        if len(part) > piece:
            raise Violation(f"read({piece}) returned {len(part)} bytes")
        before = reader.remaining
        parts.append(part)
        if before < 0:
            raise Violation(f"{before} bytes remain")
    return b"".join(parts)


def _compare(reader: Reader, value: bytes, offset: int, size: int | None, piece: int) -> None:
    what = f"{len(value)} bytes, offset {offset}, size {size}"
    expected = _expected(value, offset, size)
    with reader:
        require(reader.item_size == len(value), f"{what}: item_size is {reader.item_size}")
        require(
            reader.remaining == len(expected),
            f"{what}: {reader.remaining} bytes remain at the start, not {len(expected)}",
        )
        got = _drain(reader, piece)
        require(got == expected, f"{what}: {len(got)} bytes came, not the {len(expected)} due")
        require(reader.remaining == 0, f"{what}: {reader.remaining} bytes remain at the end")
        require(reader.read(1) == b"", f"{what}: read after the end returned something")


@check()
def every_small_range(at: Ground) -> str:
    """Every offset and size around a small item's borders reads exactly what Python's slices do."""
    count = 0
    for length in (0, 1, _SMALL):
        value = bytes(range(length))
        name = at.put("item", value)
        for offset in _OFFSETS:
            for size in _LENGTHS:
                reader = at.backend.open_reader(name, offset=offset, size=size)
                _compare(reader, value, offset, size, piece=1 + count % 7)
                loaded = at.backend.load(name, offset=offset, size=size)
                require(
                    loaded == _expected(value, offset, size),
                    f"load of {length} bytes, offset {offset}, size {size}: {len(loaded)} bytes",
                )
                count += 1
    return f"{count} ranges"


@check()
def random_big_ranges(at: Ground) -> str:
    """Random ranges of some MiB, and those at the borders of buffers, are read exactly."""
    value = values.make(1, 3 * CHUNK + 1)
    name = at.put("item", value)
    dice = random.Random(1)  # noqa: S311 - not for secrets
    ranges = [(dice.randrange(-len(value), len(value)), dice.randrange(1 << 20)) for _ in range(60)]
    for edge in (values.PIECE, CHUNK, 2 * CHUNK, 3 * CHUNK):
        ranges += [(edge - 1, 2), (edge, 1), (edge - 1, 1), (edge, CHUNK), (-edge, CHUNK)]
    for offset, size in ranges:
        reader = at.backend.open_reader(name, offset=offset, size=size)
        _compare(reader, value, offset, size, piece=values.PIECE + 1)
    return f"{len(ranges)} ranges"


@check()
def readers_count_down(at: Ground) -> None:
    """`remaining` falls by what read returned; close may be repeated."""
    name = at.put("item", values.make(1, 100_000))
    reader = at.backend.open_reader(name, offset=10, size=50_000)
    left = 50_000
    while part := reader.read(999):
        left -= len(part)
        require(reader.remaining == left, f"{reader.remaining} bytes remain, not {left}")
    require(left == 0, f"{left} bytes never came")
    reader.close()
    reader.close()


@check()
def nowait_agrees(at: Ground) -> str:
    """What needs no waiting (open_reader_nowait, read_nowait, load_nowait) gives None or what the
    same with waiting gives."""
    answered = 0
    value = values.make(1, 300_000)
    name = at.put("item", value)
    for offset in (0, 1, -1, 100_000, 300_000, 400_000, -400_000):
        for size in (None, 0, 1, 70_000, 400_000):
            reader = at.backend.open_reader_nowait(name, offset=offset, size=size)
            if reader is not None:
                answered += 1
                _compare(reader, value, offset, size, piece=values.PIECE)
            with at.backend.open_reader(name, offset=offset, size=size) as mixed:
                got = _mixed(mixed)
            expected = _expected(value, offset, size)
            require(got == expected, f"offset {offset}, size {size}: {len(got)} bytes by turns")
            loaded = at.backend.load_nowait(name, offset=offset, size=size)
            require(
                loaded is None or (loaded.data == expected and loaded.item_size == len(value)),
                f"offset {offset}, size {size}: load_nowait gives something else",
            )
    missing = at.name("missing")
    try:
        reader = at.backend.open_reader_nowait(missing)
    except ObjectNotFound:
        reader = None
    require(reader is None, "open_reader_nowait found a missing item")
    require(at.backend.load_nowait(missing) is None, "load_nowait found a missing item")
    at.backend.delete(name)
    require(at.backend.load_nowait(name) is None, "load_nowait found a deleted item")
    expect(ObjectNotFound, lambda: at.backend.open_reader(name), "open_reader after delete")
    return f"{answered} of 35 without waiting"


@check()
def file_spans_hold_the_item(at: Ground) -> str:
    """Where file_span names a file, its bytes are those that read returns."""
    answered = 0
    value = values.make(1, 300_000)
    name = at.put("item", value)
    for offset, size in ((0, None), (1, 70_000), (-5, None), (400_000, None)):
        with at.backend.open_reader(name, offset=offset, size=size) as reader:
            span = reader.file_span()
            if span is None:
                continue
            answered += 1
            expected = _expected(value, offset, size)
            there = os.pread(span.fd, span.size, span.offset)
            require(
                there == expected and span.size == reader.remaining == len(expected),
                f"offset {offset}, size {size}: the file has other bytes than the item",
            )
    return f"{answered} of 4 in a file"


@check()
def a_buffer_gets_what_read_returns(at: Ground) -> None:
    """read_into fills buffers of any size with the bytes of the range, and says how many."""
    value = values.make(2, 1_300_000)
    name = at.put("item", value)
    for offset, size in ((0, None), (131_072, 655_360), (70_001, 900_000), (-200_000, None)):
        for room in (70_000, 1 << 20):
            with at.backend.open_reader(name, offset=offset, size=size) as reader:
                first = reader.read(1)
                buffer, got = memoryview(bytearray(room)), bytearray(first)
                while count := reader.read_into(buffer):
                    got += buffer[:count]
                require(
                    got == _expected(value, offset, size) and reader.remaining == 0,
                    f"offset {offset}, size {size}, {room} at a time: other bytes came",
                )


def _mixed(reader: Reader) -> bytes:
    """Read by turns with read, read_nowait and read_into."""
    got = bytearray()
    buffer = memoryview(bytearray(9))
    while True:
        part = reader.read_nowait(30_000)
        if part is None:
            part = reader.read(30_000)
        got += part
        if len(part) > 30_000 or not part:
            return bytes(got)
        got += reader.read(7)
        count = reader.read_into(buffer)
        got += buffer[:count]
