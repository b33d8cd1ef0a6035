"""A place that fails as a network does: calls are refused, stall, break off, lose their answer.

The same seed gives the same faults, call by call, so that what a test finds can be found again.
Every fault is one that the errors' contract allows: a BackendError that says `retryable`, after
which the call may have taken effect or not.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TypeVar

from backupgw.kvstore.backends.base import Backend, ItemInfo, Quota, Reader, Writer
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError
from backupgw.kvstore.layers.base import Layer

T = TypeVar("T")


class Fault(Enum):
    """What happens to a call."""

    REFUSED = "refused"
    """It never reached the place."""
    BUSY = "busy"
    """Refused, with the time after which to come back."""
    STALLED = "stalled"
    """Nothing came until the time was up; it never reached the place."""
    ANSWER_LOST = "answer lost"
    """The place did it, and the connection broke before it said so."""


class FlakyPlace(Layer):
    """A share of the calls to `inner` fails.

    Args:
        share: of calls that fail, from 0 to 1.
        seed: which ones, and how.
        sleep: how a stalled call passes its time.

    Attributes:
        faults: how often each happened.
        versions: whether readers tell versions.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        share: float,
        seed: int,
        sleep: Callable[[float], None],
        versions: bool = True,
    ) -> None:
        super().__init__(inner)
        self.faults: Counter[str] = Counter()
        self.versions = versions
        self._share = share
        self._random = random.Random(seed)
        self._sleep = sleep
        self._lock = threading.Lock()

    def quiet(self) -> None:
        """From here on nothing fails."""
        self._share = 0.0

    def draw(self, kind: str) -> Fault | None:
        """Say what happens to the next call."""
        with self._lock:
            if self._random.random() >= self._share:
                return None
            fault = self._random.choice(list(Fault))
            self.faults[f"{kind}: {fault.value}"] += 1
            return fault

    def cut(self, most: int) -> int | None:
        """Say after how many bytes or entries a stream breaks off, None if it does not."""
        with self._lock:
            if self._random.random() >= self._share:
                return None
            self.faults["broken off"] += 1
            return self._random.randrange(most)

    def call(self, kind: str, work: Callable[[], T]) -> T:
        fault = self.draw(kind)
        if fault is Fault.STALLED:
            self._sleep(5.0)
        if fault is Fault.BUSY:
            raise BackendError(f"{kind}: busy", retryable=True, retry_after=0.5)
        if fault is not None and fault is not Fault.ANSWER_LOST:
            raise BackendConnectionError(f"{kind}: {fault.value}")
        result = work()
        if fault is Fault.ANSWER_LOST:
            raise BackendConnectionError(f"{kind}: the answer was lost")
        return result

    def open(self) -> None:
        # Whatever the answer was, a connection that broke leaves nothing open here.
        if self.draw("open") is not None:
            raise BackendConnectionError("open: refused")
        self.inner.open()

    def mkdir(self, name: str) -> None:
        self.call("mkdir", lambda: self.inner.mkdir(name))

    def mkdirs(self, names: Iterable[str]) -> None:
        self.call("mkdirs", lambda: self.inner.mkdirs(names))

    def rmdir(self, name: str) -> None:
        self.call("rmdir", lambda: self.inner.rmdir(name))

    def info(self, name: str) -> ItemInfo:
        return self.call("info", lambda: self.inner.info(name))

    def list(self, name: str) -> Iterator[ItemInfo]:
        entries = self.call("list", lambda: self.inner.list(name))
        cut = self.cut(60)
        for number, info in enumerate(entries):
            if number == cut:
                raise BackendConnectionError(f"the listing of {name!r} broke off")
            yield info

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        reader = self.call(
            "open_reader", lambda: self.inner.open_reader(name, offset=offset, size=size)
        )
        return FlakyReader(reader, self)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        fault = self.draw("open_writer")
        if fault is not None:
            raise BackendConnectionError(f"open_writer: {fault.value}")
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return FlakyWriter(writer, self)

    def delete(self, name: str) -> None:
        self.call("delete", lambda: self.inner.delete(name))

    def move(self, name: str, new_name: str) -> None:
        self.call("move", lambda: self.inner.move(name, new_name))

    def move_if_absent(self, name: str, new_name: str) -> None:
        self.call("move_if_absent", lambda: self.inner.move_if_absent(name, new_name))

    def sync(self, name: str) -> None:
        self.call("sync", lambda: self.inner.sync(name))

    def quota(self) -> Quota:
        return self.call("quota", self.inner.quota)


class FlakyReader(Reader):
    """Breaks off somewhere, with an error or by simply ending too early."""

    def __init__(self, reader: Reader, place: FlakyPlace) -> None:
        self._reader = reader
        self._place = place
        self.item_size = reader.item_size
        self._cut = place.cut(max(reader.remaining, 1))
        self._silently = self._cut is not None and self._cut % 2 == 0

    @property
    def remaining(self) -> int:  # type: ignore[override]  # it follows the inner one's
        return self._reader.remaining

    @property
    def version(self) -> str | None:
        return self._reader.version if self._place.versions else None

    def read(self, size: int) -> bytes:
        if self._cut is None:
            return self._reader.read(size)
        if self._cut == 0:
            if self._silently:
                return b""
            raise BackendConnectionError("the download broke off")
        data = self._reader.read(min(size, self._cut))
        self._cut -= len(data)
        return data

    def close(self) -> None:
        self._reader.close()


class FlakyWriter(Writer):
    """Fails while it is written to, or at commit, before or after the value got its name."""

    def __init__(self, writer: Writer, place: FlakyPlace) -> None:
        self._writer = writer
        self._place = place

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._place.draw("write") is not None:
            raise BackendConnectionError("the upload broke off")
        self._writer.write(data)

    def check(self) -> None:
        self._writer.check()

    def commit(self) -> None:
        self._place.call("commit", self._writer.commit)

    def commit_over(self, kept: str) -> None:
        self._place.call("commit_over", lambda: self._writer.commit_over(kept))

    def abort(self) -> None:
        self._writer.abort()

    @property
    def offset(self) -> int:
        return self._writer.offset
