"""Values on their way from and to a borgstore server.

A value is kept until it is committed, in memory while it is small and in a temporary file when it
is not: the protocol wants its length and hash first, and a value that is whole here can be sent
again when the connection breaks.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from typing import IO, Protocol

from .base import Reader, Writer
from .errors import (
    BackendConnectionError,
    BackendError,
    ContentMismatch,
    ReadRangeError,
    StorageFull,
)

IN_MEMORY = 2 << 20
"""Bytes of a value on its way out that are held in memory."""


class Delivering(Protocol):
    """What a reader needs of an answer."""

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""

    def release(self) -> None:
        """Let go of it."""


Resume = Callable[[int, int], Delivering]
"""Asks for an item again, from an offset on and for so many bytes."""


class RestReader(Reader):
    """Reads an answer; when its connection breaks, asks for the rest.

    Args:
        answer: at the first byte wanted.
        first: that byte's offset in the item.
        remaining: bytes wanted.
        item_size: the item's size, or what finds it out.
        resume: asks for the rest.
        tries: how often.
    """

    def __init__(
        self,
        answer: Delivering,
        first: int,
        remaining: int,
        item_size: int | Callable[[], int],
        resume: Resume,
        tries: int,
    ) -> None:
        self._answer: Delivering = answer
        self._at = first
        self.remaining = remaining
        self._size = item_size
        self._resume = resume
        self._tries = tries

    @property
    def item_size(self) -> int:  # type: ignore[override]  # a server may not tell before it is asked
        """Size of the whole item in bytes."""
        if callable(self._size):
            self._size = self._size()
        return self._size

    def read(self, size: int) -> bytes:
        if not self.remaining or size <= 0:
            return b""
        while True:
            try:
                data = self._answer.read(min(size, self.remaining))
            except BackendConnectionError:
                if not self._tries:
                    raise
                self._tries -= 1
                self._answer = self._resume(self._at, self.remaining)
                continue
            if not data:
                raise ReadRangeError(f"{self.remaining} bytes fewer than the server announced")
            self._at += len(data)
            self.remaining -= len(data)
            return data

    def close(self) -> None:
        self._answer.release()


Send = Callable[[IO[bytes], int, str], None]
"""Stores a value: its bytes, their number, their SHA-256 in hex."""


class RestWriter(Writer):
    """Gathers a value, and sends it when it is committed.

    Args:
        name: the item's, for messages.
        send: stores it.
        size: bytes that will come, None if unknown.
        expected_hash: their SHA-256 in hex, None if unknown.
    """

    def __init__(self, name: str, send: Send, size: int | None, expected_hash: str | None) -> None:
        self._name = name
        self._send = send
        self._expected_size = size
        self._expected_hash = expected_hash
        self._digest = hashlib.sha256()
        self._count = 0
        self._kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed at the end

    @property
    def offset(self) -> int:
        return self._count

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._kept.write(data)
        except OSError as error:
            raise StorageFull(
                f"{self._name}: no room for it in this machine's temporary folder: {error.strerror}"
            ) from error
        except ValueError as error:
            raise BackendError(f"{self._name}: the write has ended already") from error
        self._digest.update(data)
        self._count += memoryview(data).nbytes

    def check(self) -> None:
        if self._kept.closed:
            raise BackendError(f"{self._name}: the write has ended already")
        if self._expected_size is not None and self._count != self._expected_size:
            raise ContentMismatch(
                f"{self._name}: {self._count} bytes came, {self._expected_size} were announced"
            )
        digest = self._digest.hexdigest()
        if self._expected_hash is not None and digest != self._expected_hash:
            raise ContentMismatch(f"{self._name}: the bytes hash to {digest}")

    def commit(self) -> None:
        self.check()
        self._send(self._kept, self._count, self._digest.hexdigest())
        self._kept.close()

    def abort(self) -> None:
        self._kept.close()
