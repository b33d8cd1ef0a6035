"""Small ranges of items that never change: what is fetched for them, and what is not."""

from __future__ import annotations

import random
import threading

import pytest

from backupgw.kvstore.backends.blocks_kept import BLOCK, IN_VAIN, BlocksKept
from backupgw.kvstore.backends.errors import BackendConnectionError
from backupgw.kvstore.conformance import values

TOTAL = 40 * BLOCK + 1234


class Place:
    """One item, and what was fetched of it."""

    def __init__(self) -> None:
        self.value = values.make(3, TOTAL)
        self.fetched: list[tuple[int, int]] = []
        self.broken = False
        self.hold: threading.Event | None = None

    def load(self, start: int, size: int) -> bytes:
        self.fetched.append((start, size))
        if self.hold is not None:
            self.hold.wait(10)
        if self.broken:
            raise BackendConnectionError("it broke")
        return self.value[start : start + size]

    def read(self, blocks: BlocksKept, start: int, size: int, item: int = 1) -> bytes:
        """Read as a place does: from blocks, or else the range itself."""
        found = blocks.read(item, start, size, TOTAL, self.load)
        if found is None:
            found = self.load(start, size)
        assert found == self.value[start : start + size]
        return found


@pytest.fixture
def item() -> Place:
    return Place()


def test_the_second_range_fetches_the_block_that_serves_the_others(item: Place) -> None:
    blocks = BlocksKept()
    for start in (5000, 100, 90_000, 0, 200_000):
        item.read(blocks, start, 700)
    assert item.fetched == [(5000, 700), (0, BLOCK)]
    assert blocks.get(1, 17, 100) == item.value[17:117]
    assert blocks.get(1, BLOCK, 1) is None
    assert blocks.get(2, 17, 100) is None


def test_a_range_may_lie_in_two_blocks_and_at_the_end(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    item.read(blocks, BLOCK - 5, 10)
    for _ in range(2):
        item.read(blocks, 7, 10)
    item.read(blocks, 2 * BLOCK - 5, 10)
    item.read(blocks, TOTAL - 100, 100)
    assert item.fetched[1:] == [(0, 2 * BLOCK), (2 * BLOCK, BLOCK), (40 * BLOCK, 1234)]


def test_what_is_scattered_is_fetched_by_itself_after_two_blocks_in_vain(item: Place) -> None:
    blocks = BlocksKept()
    for number in range(0, 40, 2):
        item.read(blocks, number * BLOCK + 100, 500)
    in_vain = sum(size for _, size in item.fetched) - 20 * 500
    assert 0 < in_vain <= IN_VAIN * BLOCK


def test_a_large_range_and_the_first_one_are_fetched_as_they_are(item: Place) -> None:
    blocks = BlocksKept()
    for _ in range(3):
        item.read(blocks, 10, BLOCK + 1)
    item.read(blocks, 10, 20)
    assert item.fetched == [(10, BLOCK + 1)] * 3 + [(10, 20)]


def test_memory_is_bounded(item: Place) -> None:
    blocks = BlocksKept(memory=5 * BLOCK)
    for number in range(40):
        item.read(blocks, number * BLOCK, 10)
        item.read(blocks, number * BLOCK + 20, 10)
        kept = [n for n in range(40) if blocks.get(1, n * BLOCK, 10) is not None]
        assert len(kept) <= 5
        assert number == 0 or number in kept


def test_blocks_are_of_use_for_a_time_only(item: Place) -> None:
    blocks = BlocksKept(seconds=0.0)
    for _ in range(4):
        item.read(blocks, 0, 10)
    assert item.fetched == [(0, 10)] * 4


def test_nothing_is_kept_of_what_is_gone(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    item.read(blocks, 0, 10)
    blocks.forget([1])
    assert blocks.get(1, 0, 10) is None


def test_who_waits_for_a_block_of_what_is_gone_meanwhile_gets_an_answer(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    item.hold = threading.Event()
    threads = [threading.Thread(target=item.read, args=(blocks, 20, 10)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(item.fetched) < 2:
        pass
    blocks.forget([1])
    item.hold.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert blocks.get(1, 0, 10) is None, "it came too late to be kept"


def test_many_at_a_time_fetch_a_block_once(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    draws = random.Random(5)
    starts = [draws.randrange(BLOCK - 100) for _ in range(16)]
    go = threading.Barrier(len(starts))
    done: list[int] = []

    def read(start: int) -> None:
        go.wait(10)
        item.read(blocks, start, 100)
        done.append(start)

    threads = [threading.Thread(target=read, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == sorted(starts)
    assert item.fetched == [(0, 10), (0, BLOCK)]


def test_a_block_that_cannot_be_fetched_costs_no_range(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    item.broken = True
    assert blocks.read(1, 20, 10, TOTAL, item.load) is None
    item.broken = False
    item.read(blocks, 20, 10)
    assert blocks.get(1, 30, 10) is not None, "it was fetched now"


def test_one_that_comes_short_is_none(item: Place) -> None:
    blocks = BlocksKept()
    item.read(blocks, 0, 10)
    assert blocks.read(1, 20, 10, TOTAL, lambda start, size: item.load(start, size - 1)) is None
    assert blocks.get(1, 20, 10) is None
