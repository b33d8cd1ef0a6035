"""HTTP/1.1 as a client has it on one connection: a request goes out in one piece, and of the answer
only what its framing needs is understood.

Python's own client parses each answer's head as e-mail and opens a file on the socket for it, which
took most of the time of a small load. Framing is strict (RFC 9112): whatever two readers could
understand differently is refused, and a connection with bytes left over is not used again.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Mapping
from http import HTTPStatus as Http
from typing import IO, NamedTuple

from .rest_waiting import TAKEN, Waiting

BLOCK = 1 << 20
"""Bytes of a body sent at a time."""

MOST_HEAD = 64 << 10
"""Bytes that the head of an answer may have, and each line between its chunks."""

_JOINED = 64 << 10
"""Bytes up to which a body goes out together with the head before it."""

_REMEMBERED = 1 << 10
"""Bytes up to which the head of an answer is remembered."""

_END = b"\r\n\r\n"

_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: |\Z)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;|\Z)")
_TARGET = re.compile(r"[!-~]+\Z")
_UNSAFE = re.compile(r"[\0\r\n]")

# In Python 3.11 a look-up in an enum takes as long as the rest of a comparison.
_FINAL, _SWITCHING = int(Http.OK), int(Http.SWITCHING_PROTOCOLS)
_EMPTY = frozenset({int(Http.NO_CONTENT), int(Http.NOT_MODIFIED)})

Body = bytes | memoryview | IO[bytes]


class BrokenAnswer(ConnectionError):
    """An answer that ends early or makes no sense; its connection is of no use any more."""


def lines_of(headers: Mapping[str, str]) -> str:
    """Return headers as they are sent.

    Raises:
        ValueError: one would not end where it should.
    """
    for name, value in headers.items():
        if _known(name) is None or _UNSAFE.search(value):
            raise ValueError(f"not a header that can be sent: {name!r}")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def send(
    sock: socket.socket,
    method: str,
    target: str,
    lines: str,
    body: Body | None,
    *,
    before: bytes = b"",
) -> None:
    """Send a request.

    Args:
        target: path and query, quoted.
        lines: the headers, as `lines_of` makes them.
        body: a file is sent from where it stands; its length is among the headers.
        before: a request without a body that goes out ahead of it.

    Raises:
        OSError: the connection broke, or the file.
        ValueError: the target is none.
    """
    if not _TARGET.match(target):
        raise ValueError(f"not a path that can be asked for: {target!r}")
    head = before + f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    if body is None:
        sock.sendall(head)
    elif isinstance(body, bytes | memoryview):
        if len(body) <= _JOINED:
            sock.sendall(b"".join((head, body)))
        else:
            sock.sendall(head)
            sock.sendall(body)
    else:
        sock.sendall(head)
        while block := body.read(BLOCK):
            sock.sendall(block)


def begin(sock: socket.socket, method: str, target: str, lines: str) -> None:
    """Send a request's head; its body follows by `send_chunk`. Raises what `send` does."""
    send(sock, method, target, f"{lines}Transfer-Encoding: chunked\r\n", None)


def send_chunk(sock: socket.socket, data: bytes | bytearray | memoryview) -> None:
    """Send a piece of a body that was begun; an empty one ends it. Raises OSError."""
    size = memoryview(data).nbytes
    if size <= _JOINED:
        sock.sendall(b"%x\r\n%b\r\n" % (size, bytes(data)))
        return
    sock.sendall(b"%x\r\n" % size)
    sock.sendall(data)
    sock.sendall(b"\r\n")


class _Head(NamedTuple):
    """What the head of an answer says.

    Attributes:
        length: bytes of the body, None where the head does not tell.
        chunked: the body comes in chunks.
        last: the connection ends with this answer.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    chunked: bool
    last: bool


class Response:
    """The answer to a request, of which the head was read.

    Args:
        sock: where it comes from; it stays the caller's.
        method: the request's, HEAD's answers have no body.
        waiting: how its first bytes are waited for.
        held: what came of it already.

    Attributes:
        status: HTTP's.
        headers: by their names in lower case; one that came several times with commas between.
        length: bytes of the body still to come, None where only its end will tell.
        last: the server says that the connection ends with this answer.
        will_close: the connection cannot be used for another request.

    Raises:
        BrokenAnswer: it is no answer.
        OSError: the connection broke.
    """

    __slots__ = ("_chunk", "_held", "_sock", "headers", "last", "length", "status", "will_close")

    def __init__(
        self,
        sock: socket.socket,
        method: str,
        waiting: Waiting | None = None,
        *,
        held: bytes = b"",
    ) -> None:
        self._sock = sock
        self._held = held if waiting is None else self._some(waiting.first(sock))
        bodiless = method == "HEAD"
        while True:
            head = self._head()
            understand = _understood if len(head) <= _REMEMBERED else _understood.__wrapped__
            self.status, self.headers, self.length, chunked, self.last = understand(head, bodiless)
            if self.status >= _FINAL:
                break  # those before are notices, and the answer follows
        self._chunk: int | None = 0 if chunked else None
        """Bytes left of the chunk that is being read; None for a body without chunks."""
        self.will_close = self.last or (self.length is not None and len(self._held) > self.length)

    def _head(self) -> bytes:
        held = self._held
        while (end := held.find(_END, 0, MOST_HEAD)) < 0:
            if len(held) >= MOST_HEAD:
                raise BrokenAnswer("the head of the answer does not end")
            more = self._some(self._sock.recv(TAKEN))
            held = held + more if held else more
        self._held = held[end + len(_END) :]
        return held[:end]

    def _some(self, data: bytes) -> bytes:
        if not data:
            raise BrokenAnswer("the server closed the connection without an answer")
        return data

    @property
    def beyond(self) -> bytes:
        """What came after an answer without a body."""
        return self._held

    def header(self, name: str) -> str | None:
        """Return a header; one that came several times with commas between."""
        return self.headers.get(name.lower())

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes of the body, b"" at its end.

        Raises:
            BrokenAnswer: it ends early.
            OSError: the connection broke.
        """
        if self._chunk is not None:
            return self._read_chunked(size)
        if self.length is None:
            return self._take(size)
        if not self.length:
            return b""
        data = self._take(min(size, self.length))
        if not data:
            raise BrokenAnswer(f"{self.length} bytes were missing at the end")
        self.length -= len(data)
        return data

    def read_into(self, buffer: memoryview) -> int:
        """Read bytes of the body into a buffer that is not empty; return how many, 0 at its end.

        Raises what `read` does.
        """
        if self._held or self._chunk is not None or not self.length:
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        count = self._sock.recv_into(buffer[: self.length])
        if not count:
            raise BrokenAnswer(f"{self.length} bytes were missing at the end")
        self.length -= count
        return count

    def _take(self, size: int) -> bytes:
        held = self._held
        if not held:
            return self._sock.recv(size)
        self._held = held[size:]
        return held if len(held) <= size else held[:size]

    def _read_chunked(self, size: int) -> bytes:
        if self.length == 0:
            return b""
        if not self._chunk:
            found = _CHUNK.match(self._line())
            if not found:
                raise BrokenAnswer("a chunk of the answer has no length")
            self._chunk = int(found[1], 16)
            if not self._chunk:
                while self._line():
                    continue  # trailers, which nobody asked for
                self.length = 0
                self.will_close |= bool(self._held)
                return b""
        data = self._take(min(size, self._chunk))
        if not data:
            raise BrokenAnswer("the answer ends in the middle of a chunk")
        self._chunk -= len(data)
        if not self._chunk and self._line():
            raise BrokenAnswer("a chunk of the answer is longer than it said")
        return data

    def _line(self) -> bytes:
        while (end := self._held.find(b"\r\n", 0, MOST_HEAD)) < 0:
            if len(self._held) >= MOST_HEAD:
                raise BrokenAnswer("a line of the answer does not end")
            more = self._sock.recv(TAKEN)
            if not more:
                raise BrokenAnswer("the answer ends in the middle")
            self._held += more
        line, self._held = self._held[:end], self._held[end + 2 :]
        return line


@functools.lru_cache(256)
def _known(name: str) -> str | None:
    """Return a header's name in lower case, None for what is no name."""
    return name.lower() if _NAME.match(name) else None


@functools.lru_cache(64)
def _understood(head: bytes, bodiless: bool) -> _Head:
    """Return what a head says; small ones are remembered, for a server's hardly differ.

    Raises:
        BrokenAnswer: it is none.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    if not (found := _STATUS.match(first)):
        raise BrokenAnswer(f"not an HTTP answer: {first[:60]!r}")
    status, old = int(found[2]), found[1] == "0"
    if status == _SWITCHING:
        raise BrokenAnswer("the server would speak another protocol")
    headers = _headers(lines)
    last = old
    if (connection := headers.get("connection")) is not None:
        options = {word.strip() for word in connection.lower().split(",")}
        last = "close" in options or (old and "keep-alive" not in options)
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise BrokenAnswer(f"not a length: {length[:60]!r}")
    if bodiless or status in _EMPTY:
        return _Head(status, headers, 0, chunked=False, last=last)
    if coding is not None:
        if coding.lower() != "chunked" or length is not None or old:
            raise BrokenAnswer(f"its transfer coding cannot be understood: {coding[:60]!r}")
        return _Head(status, headers, None, chunked=True, last=last)
    if length is None:
        return _Head(status, headers, None, chunked=False, last=True)
    return _Head(status, headers, int(length), chunked=False, last=last)


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        written, colon, value = line.partition(":")
        name = _known(written)
        if not colon or name is None:
            raise BrokenAnswer(f"not a header: {line[:60]!r}")
        value = value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name != "content-length":
            headers[name] += f", {value}"
        elif headers[name] != value:
            raise BrokenAnswer("two different lengths")
    return headers
