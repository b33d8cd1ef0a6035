"""One request and its answer, and how bodies go in and out: what both protocols here share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend, Reader
from backupgw.runtime.http.direct_body import DIRECT_BODY, Take
from backupgw.runtime.http.exchange import ANSWER_AT_ONCE, ANSWER_LINES
from backupgw.runtime.http.incoming import Incoming
from backupgw.runtime.http.item_body import CHUNK, send_long, send_rest
from backupgw.runtime.threads import Threads

from .rates import Pace
from .refusals import Headers, Refusal

log = logging.getLogger(__name__)

T = TypeVar("T")
Pieces = Sequence[bytes | memoryview]

UPLOAD_BATCH = 1 << 20
"""Bytes gathered from the socket before a thread hashes and writes them: a thread hop costs about
as much as hashing 100 KB."""

PACED_CHUNK = 64 << 10
"""Bytes sent at a time where a rate paces them."""

TEXT = (b"content-type", b"text/plain; charset=utf-8")
TEXT_LINE = b"content-type: text/plain; charset=utf-8\r\n"
OCTETS = (b"content-type", b"application/octet-stream")
OCTETS_LINE = b"content-type: application/octet-stream\r\n"


def lines_of(headers: Headers) -> bytes:
    """Return headers as lines of a head: of names and values that are ours."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _headers_of(lines: bytes) -> Headers:
    return [(name, value) for name, _, value in (x.partition(b": ") for x in lines.splitlines())]


class Exchange(Incoming):
    """One request and its answer."""

    __slots__ = ("_send", "_started", "download_pace", "upload_pace")

    common: ClassVar[Headers] = []
    """Headers of every answer."""
    common_lines: ClassVar[bytes] = b""
    """The same as lines of a head."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._started = False
        self.upload_pace: Pace | None = None
        self.download_pace: Pace | None = None

    # -- the request's body

    def too_large(self, text: str) -> Refusal:
        """Return the refusal of a body that is too large."""
        return Refusal(413, text)

    async def take_body(
        self, threads: Threads, write: Callable[[Pieces], object], finish: Callable[[Pieces], T]
    ) -> T:
        """Hand the body on, piece by piece, on threads; return what `finish` returns.

        Args:
            write: takes pieces, more than once or never.
            finish: takes the last ones.
        """
        take: Take | None = self.scope.get("extensions", {}).get(DIRECT_BODY)
        if take is not None and self.upload_pace is None:
            await take(lambda piece: write((piece,)), threads)
            return await threads.run(finish, ())
        pieces: list[bytes] = []
        held = 0
        while True:
            piece, more = await self.receive_body()
            if piece:
                pieces.append(piece)
                held += len(piece)
                if self.upload_pace is not None:
                    await self.upload_pace(len(piece))
            if not more:
                return await threads.run(finish, pieces)
            if held >= UPLOAD_BATCH:
                await threads.run(write, pieces)
                pieces, held = [], 0

    # -- the answer

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self._started = True
        if self.common:
            headers = [*headers, *self.common]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_body(self, body: bytes | bytearray, *, more: bool) -> None:
        """Send a piece of its body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def send_whole(self, status: int, headers: Headers, body: bytes | bytearray) -> None:
        """Send an answer whose headers tell the length of its body."""
        at_once = self.scope.get(ANSWER_AT_ONCE)
        if at_once is None:
            await self.start(status, headers)
            await self.send_body(body, more=False)
            return
        self._started = True
        at_once(status, [*headers, *self.common] if self.common else headers, body)

    async def send_whole_lines(self, status: int, lines: bytes, body: bytes | bytearray) -> None:
        """Send bytes of an item as the whole answer.

        Args:
            lines: of the head, each with its line's end; nothing in them is a client's.
        """
        at_once = self.scope.get(ANSWER_LINES)
        if at_once is not None:
            self._started = True
            at_once(status, OCTETS_LINE + lines + self.common_lines, body)
            return
        await self._start_item(status, lines, len(body))
        await self.send_body(body, more=False)

    async def send_item(self, reader: Reader, status: int, lines: bytes, threads: Threads) -> None:
        """Send what a reader has, with its length; `lines` as in `send_whole_lines`."""
        size = reader.remaining
        if self.download_pace is not None:
            await self._start_item(status, lines, size)
            await self._send_paced(reader, self.download_pace, threads)
        elif size > CHUNK:
            await self._start_item(status, lines, size)
            await send_long(self.scope, self._send, reader, threads)
        else:
            body = reader.read_nowait(size) if size else b""
            if body is not None and len(body) == size:
                await self.send_whole_lines(status, lines, body)
                return
            await self._start_item(status, lines, size)
            if body:
                await self.send_body(body, more=True)
            await send_rest(self._send, reader, threads)

    async def _start_item(self, status: int, lines: bytes, size: int) -> None:
        length = (b"content-length", b"%d" % size)
        await self.start(status, [length, *_headers_of(OCTETS_LINE + lines)])

    async def _send_paced(self, reader: Reader, pace: Pace, threads: Threads) -> None:
        if not reader.remaining:
            await self.send_body(b"", more=False)
        while reader.remaining:
            piece = await threads.run(reader.read, PACED_CHUNK)
            await self.send_body(piece, more=reader.remaining > 0)
            await pace(len(piece))

    async def answer(self, status: int, text: str = "", headers: Headers | None = None) -> None:
        """Answer with one line, or nothing."""
        body = f"{text}\n".encode() if text else b""
        at_once = self.scope.get(ANSWER_LINES)
        if headers is None and at_once is not None:
            self._started = True
            at_once(status, TEXT_LINE + self.common_lines, body)
            return
        head: Headers = [(b"content-length", b"%d" % len(body)), TEXT, *(headers or [])]
        await self.send_whole(status, head, body)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal; an answer under way can only be broken off."""
        if self._started:
            log.error("an answer was broken off: %s", refusal.text)
            raise refusal
        await self.answer(refusal.status, refusal.text, refusal.headers)


async def open_reader(
    backend: Backend, name: str, offset: int, size: int | None, threads: Threads
) -> Reader:
    """Open an item, without a thread where that needs no waiting.

    Raises:
        BackendError: what `Backend.open_reader` raises.
    """
    reader = backend.open_reader_nowait(name, offset=offset, size=size)
    if reader is None:
        reader = await threads.run(backend.open_reader, name, offset=offset, size=size)
    return reader
