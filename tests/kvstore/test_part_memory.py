"""Buffers of parts are used again: never with what was in them, never more than there is room."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from tests.kvstore.scripted_target import Place, PlainTarget

from backupgw.kvstore.backends import part_memory
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.part_memory import SpareBuffers
from backupgw.kvstore.backends.part_transfers import Part, PartPool
from backupgw.kvstore.backends.part_writer import PartWriter
from backupgw.kvstore.backends.plan import Plan
from backupgw.kvstore.layers.retry_schedule import Schedule

MB = 1 << 20
PART = 2 * MB


@pytest.fixture
def pool() -> Iterator[PartPool]:
    pool = PartPool(threads=4, memory=16 * MB)
    yield pool
    pool.close()
    assert pool.spares.held == 0


def store(pool: PartPool, target: PlainTarget, value: bytes, *, told: bool = True) -> None:
    plan = Plan(target.name, len(value) if told else None, if_absent=False, expected_hash=None)
    with PartWriter(pool, target, plan) as writer:
        for start in range(0, len(value), 100_000):
            writer.write(value[start : start + 100_000])


class Watching(PlainTarget):
    """Notes which objects it was given, and keeps looking at the first."""

    def __init__(self, place: Place, *, keeps: bool = False) -> None:
        super().__init__(place, size=PART)
        self.seen: list[int] = []
        self.kept: memoryview | None = None
        self._keeps = keeps

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        self.seen.append(id(data))
        if self._keeps and self.kept is None:
            self.kept = memoryview(data)
        return super().put_part(state, part, data)


@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_what_was_in_a_buffer_is_in_no_other_value(pool: PartPool, told: bool) -> None:
    place, sizes = Place(), random.Random(1)
    for number in range(40):
        size = sizes.choice([1, PART - 1, PART, PART + 1, 3 * PART, sizes.randrange(4 * PART)])
        value = random.Random(number).randbytes(size)
        store(pool, PlainTarget(place, size=PART), value, told=told)
        assert place.items["item"] == value


def test_parts_share_buffers(pool: PartPool) -> None:
    target = Watching(Place())
    store(pool, target, bytes(5 * PART))
    held = {id(buffer) for buffer in pool.spares._buffers}
    assert held
    target.seen.clear()
    store(pool, target, bytes(5 * PART))
    assert held.intersection(target.seen), "all of them are new"


def test_a_buffer_that_a_library_still_looks_at_is_not_used(pool: PartPool) -> None:
    place = Place()
    first = Watching(place, keeps=True)
    store(pool, first, b"a" * 5 * PART)
    for _ in range(4):
        store(pool, PlainTarget(place, size=PART), b"b" * 5 * PART)
    assert first.kept is not None
    assert bytes(first.kept) == b"a" * PART


def test_writers_and_spares_hold_no_more_than_there_is(pool: PartPool) -> None:
    place, most = Place(), [0]

    def watch() -> None:
        while not done.wait(0.0005):
            # Between the two somebody may take one: what writers hold is looked at first.
            claimed, held = pool.claimed, pool.spares.held
            most.append(held if claimed <= 16 * MB else 0)
            most.append(claimed + held if claimed == pool.claimed else 0)

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [
        threading.Thread(target=store, args=(pool, PlainTarget(place, size=PART), bytes(9 * MB)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    watcher.join()
    assert max(most) <= 16 * MB + PART, "a part on its way from one to the other"
    assert pool.claimed == 0
    assert 0 < pool.spares.held <= 16 * MB
    pool.claim(15 * MB)
    assert pool.spares.held <= MB
    pool.give(15 * MB)


def test_spares_go_when_nobody_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_memory, "KEPT", 0.05)
    spares = SpareBuffers(lambda: 16 * MB)
    spares.keep(bytearray(PART))
    assert spares.held == PART
    deadline = time.monotonic() + 10
    while spares.held:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    spares.keep(bytearray(PART))  # and begins anew
    assert spares.held == PART
    spares.clear()
    assert spares.held == 0
    assert not [each for each in threading.enumerate() if each.name == "backupgw-buffers"]


def test_only_one_that_fits_is_taken() -> None:
    spares = SpareBuffers(lambda: 16 * MB)
    spares.keep(bytearray(b"x" * PART))
    assert spares.take(PART + 1) is None, "too small"
    assert spares.take(PART // 2) is None, "too large to be held for so little"
    taken = spares.take(PART - 100)
    assert taken is not None
    assert len(taken) == PART - 100
    assert spares.held == 0
    spares.clear()


def test_small_buffers_are_not_kept() -> None:
    spares = SpareBuffers(lambda: 16 * MB)
    small = bytearray(64 << 10)
    spares.keep(small)
    assert spares.held == 0
    assert not small, "its memory goes at once"
    spares.clear()


def test_memory_that_shortening_leaves_is_not_counted_away() -> None:
    """Python shortens a buffer down to the half in its place."""
    spares = SpareBuffers(lambda: 16 * MB)
    spares.keep(short := bytearray(5 * MB)[:])
    spares.clear()
    del short[3 * MB :]
    spares.keep(short)
    assert spares.held == 0
    for size in range(5 * MB, 2 * MB, -MB // 4):
        buffer = spares.take(size) or bytearray(size)
        spares.keep(buffer)
        spare = sum(each.__alloc__() for each in spares._buffers)
        assert spare <= spares.held * 9 / 8 + len(spares._buffers)
    spares.clear()


def test_without_a_thread_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spares, buffer = SpareBuffers(lambda: 16 * MB), bytearray(PART)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        spares.keep(buffer)
    assert spares.held == 0
    assert not buffer, "its memory goes at once"
    spares.keep(bytearray(PART))  # and later there is one
    assert spares.held == PART
    spares.clear()


class Broken(PlainTarget):
    """Its library fails while it looks at what it sends."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, size=PART)
        self.views: list[weakref.ref[memoryview]] = []

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        self.put_whole(data)
        return ""

    def put_whole(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        self.views.append(weakref.ref(view))
        try:
            raise OSError("broken")
        except OSError as error:
            raise BackendError("broken", retryable=True) from error


@pytest.mark.parametrize("size", [PART, 5 * PART], ids=["whole", "in parts"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_the_memory_of_what_failed_goes_without_the_collector(size: int, attempts: int) -> None:
    pool = PartPool(threads=4, schedule=Schedule(attempts=attempts, first=0.0))
    target = Broken(Place())
    gc.disable()
    try:
        with pytest.raises(BackendError, match="broken") as raised:
            store(pool, target, bytes(size))
        pool.close()
        del raised
        assert target.views
        assert not [view for view in target.views if view() is not None]
    finally:
        gc.enable()
