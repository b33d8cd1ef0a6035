"""A reader that goes on after an error, in the value that it began.

Between the error and the next attempt somebody may have replaced the item, and bytes of two values
joined together would be worse than an error. Where the place tells versions
(`Reader.version`), the version decides. Where it does not, the bytes that were delivered already
are read again and compared by their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from ..backends.base import CHUNK, Reader
from ..backends.errors import BackendError
from .retry_schedule import Schedule, Trials

T = TypeVar("T", int, bytes)


class ReplacedMeanwhile(BackendError):
    """The item was replaced while it was read; reading it anew gives the new value."""

    retryable = True


class RetryingReader(Reader):
    """Reads on where an attempt broke off.

    Args:
        reader: just opened.
        start: offset in bytes at which it begins, from the start of the item.
        reopen: opens the same item at such an offset for a size in bytes.
        schedule: how often and how long. What was delivered counts: after each success, failures
            are counted anew.
    """

    def __init__(
        self, reader: Reader, start: int, reopen: Callable[[int, int], Reader], schedule: Schedule
    ) -> None:
        self._reader = reader
        self._start = start
        self._reopen = reopen
        self._trials = Trials(schedule)
        self.item_size = reader.item_size
        self.remaining = reader.remaining
        self._version = reader.version
        self._delivered = 0
        self._digest = hashlib.sha256() if self._version is None else None
        self._broken = False

    @property
    def version(self) -> str | None:
        return self._version

    def read(self, size: int) -> bytes:
        if self.remaining == 0 or size <= 0:
            return b""  # all is here, whatever became of the connection
        data = self._read(lambda reader: reader.read(size))
        self._count(data)
        return data

    def read_into(self, buffer: memoryview) -> int:
        if self.remaining == 0 or not buffer:
            return 0
        count = self._read(lambda reader: reader.read_into(buffer))
        self._count(buffer[:count])
        return count

    def _read(self, read: Callable[[Reader], T]) -> T:
        """Read something by the reader, or by another one in its place."""
        while True:
            try:
                if self._broken:
                    self._go_on()
                data = read(self._reader)
                if not data:
                    raise BackendError(
                        f"{self.remaining} bytes less came than were announced", retryable=True
                    )
            except ReplacedMeanwhile:
                raise
            except BackendError as error:
                self._broken = True
                self._trials.pause(error)
            else:
                self._trials.succeeded()
                return data

    def read_nowait(self, size: int) -> bytes | bytearray | None:
        if self._broken:
            return None
        try:
            data = self._reader.read_nowait(size)
        except BackendError as error:
            if not error.retryable:
                raise
            self._broken = True
            return None  # read() waits and tries again
        if data:
            self._count(data)
        return data if data or self.remaining == 0 else None

    def _count(self, data: bytes | bytearray | memoryview) -> None:
        self._delivered += len(data)
        self.remaining -= len(data)
        if self._digest is not None:
            self._digest.update(data)

    def _go_on(self) -> None:
        """Open a reader that delivers what is still to come, of the same value.

        Raises:
            ReplacedMeanwhile: the name has another value now.
            BackendError: it could not be opened.
        """
        if self._digest is None:
            reader = self._reopen(self._start + self._delivered, self.remaining)
            same = reader.version == self._version and reader.remaining == self.remaining
        else:
            reader = self._reopen(self._start, self._delivered + self.remaining)
            same = reader.item_size == self.item_size and self._delivers_the_same(reader)
        if not same:
            reader.close()
            raise ReplacedMeanwhile("the item was replaced while it was read")
        # Not before: while it is open, no other value can have its version.
        self._reader.close()
        self._reader = reader
        self._broken = False

    def _delivers_the_same(self, reader: Reader) -> bool:
        """Read again what was delivered, and compare."""
        assert self._digest is not None
        digest = hashlib.sha256()
        rest = self._delivered
        try:
            while rest:
                data = reader.read(min(rest, CHUNK))
                if not data:
                    return False
                digest.update(data)
                rest -= len(data)
        except BaseException:
            reader.close()
            raise
        return digest.digest() == self._digest.digest()

    def close(self) -> None:
        self._reader.close()
