"""How httpx's requests to Drime travel: on the kernel's own HTTP, which takes a fraction of the
processor time of httpx's.

httpx builds requests and follows redirections as ever; what goes over the line is `rest_wire`'s. A
request that makes something is not repeated here; others are on a connection that turned out dead.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Protocol, cast

import httpx

from .errors import BackendConnectionError, BackendMustBeOpen
from .rest_connections import Connections
from .rest_dialing import Dial, TcpConnection, TlsConnection
from .rest_incoming import Answer
from .rest_wire import Body

BODY = "backupgw.body"
"""Extension of a request: pieces of its body, instead of httpx's stream of it; and of an answer:
its body as a file to read."""

_JOINED = 64 << 10
_PIECE = 128 << 10
"""Bytes of an answer that are read at a time."""

_OURS = frozenset(
    {b"host", b"content-length", b"connection", b"transfer-encoding", b"accept-encoding"}
)
"""Headers that are the connection's matter: answers come as they are."""

_SILENT = frozenset({"GET", "HEAD"})
_AGAIN = frozenset({"GET", "HEAD", "PUT"})
"""Methods of requests that do no harm when they arrive twice."""


class Transport(httpx.BaseTransport):
    """Connections to any number of servers, kept for later. Safe for threads.

    Args:
        idle: connections kept for each server.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    def __init__(self, *, idle: int, timeout: float) -> None:
        self._idle = idle
        self._timeout = timeout
        self._lock = threading.Lock()
        self._servers: dict[tuple[str, str, int | None], Connections] = {}
        self._context: ssl.SSLContext | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the answer, whose body is read by whoever asked.

        Raises:
            httpx.TransportError: nobody answers, or the connection broke.
        """
        pieces = request.extensions.get(BODY)
        body, size = _body_of(
            [*cast(httpx.SyncByteStream, request.stream)] if pieces is None else pieces
        )
        lines = "".join(
            f"{name.decode('ascii')}: {value.decode('latin-1')}\r\n"
            for name, value in request.headers.raw
            if name.lower() not in _OURS
        )
        try:
            answer = self._of(request.url).request(
                request.method,
                request.url.raw_path.decode("ascii"),
                lines=lines,
                body=None if request.method in _SILENT and not size else body,
                size=size,
                timeout=self._timeout,
                once=request.method not in _AGAIN,
            )
        except BackendConnectionError as error:
            raise _of_httpx(error) from error
        except BackendMustBeOpen as error:
            raise RuntimeError("the client is closed") from error
        stream = _Stream(answer)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=stream,
            request=request,
            extensions={BODY: stream},
        )

    def _of(self, url: httpx.URL) -> Connections:
        origin = (url.scheme, url.host, url.port)
        with self._lock:
            found = self._servers.get(origin)
            if found is None:
                found = Connections(
                    url.host, self._dial(url), {}, idle=self._idle, tries=0, wait=0.0
                )
                self._servers[origin] = found
            return found

    def _dial(self, url: httpx.URL) -> Dial:
        host, port = url.host, url.port
        if url.scheme == "http":
            return lambda timeout: TcpConnection(host, port, timeout=timeout)
        context = self._context = self._context or httpx.create_ssl_context()
        return lambda timeout: TlsConnection(host, port, timeout=timeout, context=context)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            servers = [*self._servers.values()]
        for server in servers:
            server.close()


class Readable(Protocol):
    """The body of an answer, read as one likes; raises `httpx.TransportError`."""

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""

    def read_into(self, buffer: memoryview, /) -> int:
        """Read 1 to len(buffer) bytes into a buffer; return how many, 0 at the end."""


def body_of(response: httpx.Response) -> Readable:
    """Return the body of an answer of which nothing was read yet."""
    body = response.extensions.get(BODY)
    return _Iterated(response.iter_raw()) if body is None else cast(Readable, body)


class _Iterated:
    """The body of an answer that came over httpx's own connections."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, size: int, /) -> bytes:
        held = self._held or next(self._pieces, b"")
        self._held = held[size:]
        return held[:size]

    def read_into(self, buffer: memoryview, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Stream(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""
        try:
            return self._answer.read(size)
        except BackendConnectionError as error:
            raise _of_httpx(error) from error

    def read_into(self, buffer: memoryview, /) -> int:
        """Read 1 to len(buffer) bytes into a buffer; return how many, 0 at the end."""
        try:
            return self._answer.read_into(buffer)
        except BackendConnectionError as error:
            raise _of_httpx(error) from error

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def close(self) -> None:
        self._answer.release()


class _Pieces:
    """Pieces of a body, read as one file: what is sent again is read again."""

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces
        self._left: list[memoryview] = []

    def seek(self, at: int) -> int:
        """Go back to the beginning."""
        self._left = [*self._pieces]
        return at

    def read(self, size: int) -> memoryview:
        """Return the next bytes."""
        while self._left:
            piece = self._left[0][:size]
            if not piece:
                self._left.pop(0)
                continue
            self._left[0] = self._left[0][size:]
            return piece
        return memoryview(b"")


def _body_of(pieces: Sequence[bytes | bytearray]) -> tuple[Body, int]:
    size = sum(map(len, pieces))
    if size <= _JOINED or len(pieces) == 1:
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)), size
    return cast(IO[bytes], _Pieces([memoryview(piece) for piece in pieces])), size


def _of_httpx(error: BackendConnectionError) -> httpx.TransportError:
    cause = error.__cause__
    if isinstance(cause, TimeoutError | BlockingIOError):  # the system says the latter
        return httpx.ReadTimeout(str(error))
    if isinstance(cause, ConnectionRefusedError):
        return httpx.ConnectError(str(error))
    return httpx.ReadError(str(error))
