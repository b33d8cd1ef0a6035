"""Reading an item from a server: several pieces are asked for before the first is here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from . import sftp_answers as answers
from . import sftp_wire as wire
from .base import Reader
from .errors import BackendError
from .sftp_answers import Refused
from .sftp_errors import translate
from .sftp_wire import Request, Session

_FIRST_WINDOW = 2
_LARGEST_WINDOW = 2 << 20
"""Bytes asked for and not yet delivered: 100 MB/s at a round trip of 20 ms."""


class _Piece(NamedTuple):
    offset: int
    size: int
    request: Request


class SftpReader(Reader):
    """Reads an open file by position.

    Args:
        session: in which it is open.
        handle: of the file; closed with the reader.
        name: for messages.
        total: the file's size in bytes.
        offset, size: as `Backend.open_reader` has them.
        close_soon: close the file behind the requests for its bytes, where they are few. Requests
            for one file are done in their order (draft-ietf-secsh-filexfer-02, 6.1).

    Attributes:
        let_go: called once, when the session is needed no more.
        released: whether the server was told to close the file.
    """

    def __init__(
        self,
        session: Session,
        handle: bytes,
        name: str,
        total: int,
        offset: int,
        size: int | None,
        *,
        close_soon: bool = False,
    ) -> None:
        self._session = session
        self._handle = wire.text(handle)
        self._name = name
        self.let_go: Callable[[], None] = lambda: None
        self._closed = False
        self.item_size = total
        start = max(total + offset, 0) if offset < 0 else min(offset, total)
        rest = total - start
        self.remaining = rest if size is None else max(min(size, rest), 0)
        self._next = start
        self._end = start + self.remaining
        self._piece = session.limits.read
        self._window = _FIRST_WINDOW
        self._under_way: deque[_Piece] = deque()
        self._here = memoryview(b"")
        self.released = False
        self._ask()
        if close_soon and self._next >= self._end and session.reads_whole:
            self._release()

    def _release(self) -> None:
        # Once only: a handle that is closed may be another file's by the next request.
        if not self.released:
            self.released = True
            self._session.forget(wire.CLOSE, self._handle)

    def _ask(self) -> None:
        """Ask for what comes next, up to the window."""
        while len(self._under_way) < self._window and self._next < self._end:
            size = min(self._piece, self._end - self._next)
            self._under_way.append(self._asked(self._next, size))
            self._next += size

    def _asked(self, offset: int, size: int) -> _Piece:
        request = self._session.send(wire.READ, self._handle, wire.long(offset), wire.number(size))
        return _Piece(offset, size, request)

    def read(self, size: int) -> bytes:
        if self._closed:
            raise BackendError(f"{self._name}: the reader is closed")
        want = min(size, self.remaining)
        if want <= 0:
            return b""
        if not self._here:
            self._here = self._receive()
        data = bytes(self._here[:want])
        self._here = self._here[want:]
        self.remaining -= len(data)
        return data

    def read_into(self, buffer: memoryview) -> int:
        if self._closed:
            return super().read_into(buffer)
        want = min(len(buffer), self.remaining)
        if want <= 0:
            return 0
        if not self._here:
            self._here = self._receive()
        data = self._here[:want]
        buffer[: len(data)] = data
        self._here = self._here[len(data) :]
        self.remaining -= len(data)
        return len(data)

    def _receive(self) -> memoryview:
        """Return the next bytes."""
        self._ask()
        offset, size, request = self._under_way.popleft()
        try:
            data = answers.data(self._session.result(request, wire.DATA))
        except Refused as error:
            if error.code == wire.END:
                raise BackendError(f"{self._name} was cut short while it was read") from error
            raise translate(error, self._name) from error
        if not data:
            raise BackendError(f"{self._name}: the server sent nothing where bytes were due")
        if len(data) < size:
            # Some servers send less than they are asked for: from now on ask for that much.
            self._session.reads_whole = False
            if self.released:
                raise BackendError(
                    f"{self._name}: the server sent {len(data)} of {size} bytes", retryable=True
                )
            self._piece = max(min(self._piece, len(data)), 1024)
            rest = self._asked(offset + len(data), size - len(data))
            self._under_way.appendleft(rest)
        if self._window * self._piece < _LARGEST_WINDOW:
            self._window = min(2 * self._window, max(_LARGEST_WINDOW // self._piece, 1))
        self._ask()
        return data

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._under_way.clear()
        self._here = memoryview(b"")
        self._release()
        self.let_go()
