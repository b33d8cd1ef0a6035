"""Reading an item that comes as the body of one HTTP answer, and going on when that breaks off.

A backend opens a `BodyReader` for a range; `open_steadily` opens it again where its connection
broke, in the same value or not at all (`layers.retry_reader`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..layers.retry_reader import RetryingReader
from ..layers.retry_schedule import Schedule
from .base import Reader
from .errors import BackendError, ReadRangeError
from .part_transfers import Attempts

_DRAINED = 64 << 10
"""Bytes that are rather read than left, so that their connection can be used again."""

BLOCK = 256 << 10
"""Bytes asked of a body at a time: libraries hold as much as they are asked for."""


class Body(Protocol):
    """What HTTP libraries hand out for the body of an answer. One that can has `read_into`, too,
    which reads into a buffer that is not empty and returns how many bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""

    def close(self) -> None:
        """Let go of the connection."""


class BodyReader(Reader):
    """Reads one body.

    Args:
        name: the item's, for messages.
        body: at the first byte wanted.
        item_size: of the whole item, in bytes.
        remaining: bytes wanted, which the place announced.
        version: what the place calls this value: an ETag, a generation, a revision.
        errors: what the library raises when a connection breaks.
        translate: makes a BackendError of one of those.
    """

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        item_size: int,
        remaining: int,
        version: str | None,
        errors: tuple[type[Exception], ...],
        translate: Callable[[Exception], BackendError],
    ) -> None:
        self.item_size = item_size
        self.remaining = remaining
        self._name = name
        self._body: Body | None = body
        self._fill: Callable[[memoryview], int] | None = getattr(body, "read_into", None)
        self._version = version
        self._errors = errors
        self._translate = translate

    @property
    def version(self) -> str | None:
        return self._version

    def read(self, size: int) -> bytes:
        if self._body is None:
            raise BackendError(f"{self._name}: the reader is closed")
        wanted = min(size, self.remaining, BLOCK)
        if wanted <= 0:
            return b""
        try:
            data = self._body.read(wanted)
        except self._errors as error:
            raise self._translate(error) from error
        self._count(len(data))
        return data

    def _count(self, count: int) -> None:
        if not count:
            raise ReadRangeError(
                f"{self._name}: {self.remaining} bytes fewer came than were announced",
                retryable=True,
            )
        self.remaining -= count

    def read_into(self, buffer: memoryview) -> int:
        if self._fill is None or self._body is None:
            return super().read_into(buffer)
        wanted = buffer[: self.remaining]
        if not wanted:
            return 0
        try:
            count = self._fill(wanted)
        except self._errors as error:
            raise self._translate(error) from error
        self._count(count)
        return count

    def close(self) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        try:
            if 0 < self.remaining <= _DRAINED:
                body.read(self.remaining)
            body.close()
        except self._errors:
            return  # the connection is gone, which is as good


class NoBytes(Reader):
    """Reads no byte of an item that exists."""

    remaining = 0

    def __init__(self, item_size: int, version: str | None = None) -> None:
        self.item_size = item_size
        self._version = version

    @property
    def version(self) -> str | None:
        return self._version

    def read(self, size: int) -> bytes:  # noqa: ARG002 - there is nothing, whatever the size
        return b""

    def close(self) -> None:
        """Nothing is held."""


def open_steadily(
    name: str,
    open_range: Callable[[int, int | None, str | None], Reader],
    *,
    offset: int,
    size: int | None,
    schedule: Schedule,
) -> Reader:
    """Open an item, and return a reader that opens it again when its connection breaks.

    Args:
        open_range: opens the item from an offset (negative: from its end) for a size; the third
            argument, unless None, is the version that it has to have: a place that can be told
            raises `layers.retry_reader.ReplacedMeanwhile` for another.
        schedule: how often and how long; what was delivered counts as success.

    Raises:
        ObjectNotFound, BackendError: what open_range raises.
    """
    reader = Attempts(schedule, name).result(lambda: open_range(offset, size, None))
    if not reader.remaining:
        return reader
    total, version = reader.item_size, reader.version
    start = max(total + offset, 0) if offset < 0 else offset
    return RetryingReader(reader, start, lambda at, left: open_range(at, left, version), schedule)
