"""Blocks of items that never change, kept for a minute: whoever reads an item in small ranges waits
for the place once for each block, not once for each range.

restic reads a tree after the other, each some kilobytes of a pack that has many of them; with a
place far away a restore was mostly waiting for those. The first range of an item is fetched by
itself. From the second on it is the block around it, as long as that turns out to be of use: of
the blocks of an item two may be fetched in vain. What is asked for whole is never answered from
here, so that a check of what the place has is one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from .base import Reader
from .errors import BackendError

BLOCK = 256 << 10
"""Bytes of a block: about what a line of 100 Mbit/s carries in the 20 ms that asking once more
takes. Larger ranges are fetched as they are."""

MEMORY = 16 << 20
"""Bytes of blocks that are kept for a place."""

KEPT = 60.0
"""Seconds for which a block is of use: as long may be read what another gateway has deleted."""

IN_VAIN = 2
"""Blocks of an item that are fetched before one of them has served another range."""

_ITEMS = 1000
"""Items whose ranges are looked at."""

Load = Callable[[int, int], bytes]
"""Fetches a range: from a byte on, so many bytes. Raises BackendError."""

_Key = tuple[int, int]
"""An item, and the number of one of its blocks."""


@dataclass(slots=True)
class _Item:
    """How an item has been read so far."""

    seen: float
    credit: int = IN_VAIN
    """Blocks that may still be fetched in vain."""


class _Block(NamedTuple):
    data: bytes
    until: float


class BlocksKept:
    """The blocks of a place's items. Safe for threads.

    Args:
        memory: bytes that are kept.
        seconds: for which a block is of use.
    """

    def __init__(self, *, memory: int = MEMORY, seconds: float = KEPT) -> None:
        self._memory = memory
        self._seconds = seconds
        self._lock = threading.Lock()
        self._items: OrderedDict[int, _Item] = OrderedDict()
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._held = 0
        self._coming: dict[_Key, Future[bytes]] = {}

    def get(self, item: int, start: int, size: int) -> bytes | None:
        """Return a range, not an empty one, if all of it is here; never waits.

        Args:
            item: what has one value for ever.
            start: of the first byte. size: in bytes.
        """
        if size > BLOCK:
            return None
        with self._lock:
            blocks = [self._block(item, number) for number in _numbers(start, size)]
            found = [block for block in blocks if block is not None]
            if len(found) < len(blocks):
                return None
            self._served(item)
        return _cut(found, start, size)

    def read(self, item: int, start: int, size: int, total: int, load: Load) -> bytes | None:
        """Return a range, from a block that is fetched if need be; None where it is rather fetched
        by itself. Takes what `get` does.

        Args:
            total: bytes of the item.
            load: fetches what is not here.
        """
        if size > BLOCK:
            return None
        mine: dict[int, Future[bytes]] = {}
        blocks: list[bytes | Future[bytes]] = []
        with self._lock:
            for number in _numbers(start, size):
                coming = self._coming.get((item, number))
                kept = self._block(item, number)
                if kept is not None:
                    blocks.append(kept)
                elif coming is not None:
                    blocks.append(coming)
                else:
                    mine[number] = Future()
                    blocks.append(mine[number])
            if not mine:
                self._served(item)
            elif not self._worth_while(item, len(mine)):
                return None
            self._coming |= {(item, number): coming for number, coming in mine.items()}
        if mine:
            self._fetch(item, mine, total, load)
        try:
            found = [each.result() if isinstance(each, Future) else each for each in blocks]
        except BackendError:
            return None  # whoever reads it by itself learns what is wrong
        return _cut(found, start, size)

    def forget(self, items: Iterable[int]) -> None:
        """Keep nothing of items that are gone, nor what is on its way of them."""
        gone = {*items}
        with self._lock:
            for key in [key for key in self._blocks if key[0] in gone]:
                self._drop(key)
            for key in [key for key in self._coming if key[0] in gone]:
                del self._coming[key]

    # -- with the lock held

    def _block(self, item: int, number: int) -> bytes | None:
        block = self._blocks.get((item, number))
        if block is None:
            return None
        if time.monotonic() >= block.until:
            self._drop((item, number))
            return None
        self._blocks.move_to_end((item, number))
        return block.data

    def _drop(self, key: _Key) -> None:
        self._held -= len(self._blocks.pop(key).data)

    def _served(self, item: int) -> None:
        if (read := self._items.get(item)) is not None:
            read.credit = min(read.credit + 1, IN_VAIN)

    def _worth_while(self, item: int, count: int) -> bool:
        """Whether blocks, so many, are fetched for a range that is not here."""
        now = time.monotonic()
        read = self._items.get(item)
        if read is None or now - read.seen > self._seconds:
            self._items[item] = _Item(now)
            self._items.move_to_end(item)
            if len(self._items) > _ITEMS:
                self._items.popitem(last=False)
            return False
        read.seen = now
        self._items.move_to_end(item)
        if read.credit < count:
            return False
        read.credit -= count
        return True

    # -- fetching

    def _fetch(self, item: int, mine: dict[int, Future[bytes]], total: int, load: Load) -> None:
        """Fetch blocks side by side, and tell all who wait for them."""
        start = min(mine) * BLOCK
        size = min((max(mine) + 1) * BLOCK, total) - start
        error: BaseException | None = None
        data = b""
        try:
            data = load(start, size)
            if len(data) != size:
                error = BackendError(f"{len(data)} of {size} bytes came")
        except BackendError as caught:
            error = caught
        except BaseException as caught:
            error = BackendError("a block could not be fetched")
            error.__cause__ = caught
            raise
        finally:
            self._arrived(item, mine, data, error)

    def _arrived(
        self,
        item: int,
        mine: dict[int, Future[bytes]],
        data: bytes,
        error: BaseException | None,
    ) -> None:
        until = time.monotonic() + self._seconds
        with self._lock:
            for at, (number, coming) in enumerate(sorted(mine.items())):
                wanted = self._coming.get((item, number)) is coming
                if wanted:
                    del self._coming[item, number]
                if error is not None:
                    coming.set_exception(error)
                    continue
                block = data[at * BLOCK : (at + 1) * BLOCK]
                coming.set_result(block)
                if wanted:  # else the item is gone
                    self._blocks[item, number] = _Block(block, until)
                    self._held += len(block)
            while self._held > self._memory:
                self._drop(next(iter(self._blocks)))


class KeptReader(Reader):
    """Reads bytes that are in memory.

    Args:
        data: all that is to be read.
        item_size: bytes of the whole item.
        version: what tells its value from any other.
    """

    def __init__(self, data: bytes, item_size: int, version: str) -> None:
        self.item_size = item_size
        self.remaining = len(data)
        self._data = memoryview(data)
        self._version = version

    @property
    def version(self) -> str:
        return self._version

    def read(self, size: int) -> bytes:
        piece = bytes(self._data[: max(0, size)])
        self._data = self._data[len(piece) :]
        self.remaining -= len(piece)
        return piece

    def read_nowait(self, size: int) -> bytes:
        return self.read(size)

    def close(self) -> None:
        """Nothing is held."""


def _numbers(start: int, size: int) -> range:
    return range(start // BLOCK, (start + size - 1) // BLOCK + 1)


def _cut(blocks: list[bytes], start: int, size: int) -> bytes:
    """Return a range of blocks that lie side by side, the first of which holds its beginning."""
    at = start % BLOCK
    held = blocks[0] if len(blocks) == 1 else b"".join(blocks)
    return held[at : at + size]
