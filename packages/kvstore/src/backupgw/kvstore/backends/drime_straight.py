"""The way to Drime over the kernel's own HTTP, which takes a fraction of the processor time of a
library's.

A request that makes something is not repeated here; others are on a connection that turned out
dead.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, cast

import httpx

from .drime_transport import Answer, Begun, Origin, Pieces, Request, not_trusted, parted
from .errors import BackendError, BackendMustBeOpen
from .rest_ahead import Ahead
from .rest_connections import AS_IT_IS, Connections
from .rest_dialing import Dial, TcpConnection, TlsConnection
from .rest_wire import Body, lines_of

_JOINED = 64 << 10

_SILENT = frozenset({"GET", "HEAD"})
_AGAIN = frozenset({"GET", "HEAD", "PUT"})
"""Methods of requests that do no harm when they arrive twice."""


class Straight:
    """Connections of the kernel's own HTTP.

    Args:
        headers: of each request.
        idle: connections kept for each server.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    def __init__(self, headers: Mapping[str, str], *, idle: int, timeout: float) -> None:
        self._headers = {"Accept": "*/*", "User-Agent": "backupgw", **headers}
        self._idle = idle
        self._timeout = timeout
        self._lock = threading.Lock()
        self._servers: dict[Origin, Connections] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False

    def send(self, request: Request) -> Answer:
        origin, target = parted(request.url)
        method = request.method
        body, size = _whole(request.body)
        try:
            return self._of(origin).request(
                method,
                target,
                lines=lines_of(request.headers),
                body=None if method in _SILENT and not size else body,
                size=size,
                timeout=self._timeout,
                once=method not in _AGAIN,
            )
        except BackendError as error:
            if (stranger := not_trusted(request.url, error)) is not None:
                raise stranger from error
            raise

    def begin(self, request: Request) -> Begun:
        origin, target = parted(request.url)
        ahead = Ahead(
            self._of(origin),
            request.method,
            target,
            lines_of(request.headers) + AS_IT_IS,
            self._timeout,
        )
        ahead.send(b"", 0)
        return _Sent(ahead, partial(self.send, request))

    def _of(self, origin: Origin) -> Connections:
        with self._lock:
            if self._closed:
                raise BackendMustBeOpen(origin.host)
            found = self._servers.get(origin)
            if found is None:
                dial = self._dial(origin)
                found = Connections(
                    origin.host, dial, self._headers, idle=self._idle, tries=0, wait=0.0
                )
                self._servers[origin] = found
            return found

    def _dial(self, origin: Origin) -> Dial:
        scheme, host, port = origin
        if scheme == "http":
            return lambda timeout: TcpConnection(host, port, timeout=timeout)
        context = self._context = self._context or httpx.create_ssl_context()
        return lambda timeout: TlsConnection(host, port, timeout=timeout, context=context)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            servers = [*self._servers.values()]
        for server in servers:
            server.close()


class _Sent:
    """A request that is on its way.

    Args:
        ahead: which was sent.
        again: sends it anew.
    """

    def __init__(self, ahead: Ahead, again: Callable[[], Answer]) -> None:
        self._ahead = ahead
        self._again = again

    def answer(self) -> Answer:
        try:
            answer = self._ahead.finish(b"")
        except OSError:
            answer = None
        return self._again() if answer is None else answer

    def drop(self) -> None:
        self._ahead.stop()


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


def _whole(pieces: Pieces) -> tuple[Body, int]:
    """Return a body as it is sent, and its size in bytes."""
    size = sum(map(len, pieces))
    if size <= _JOINED or len(pieces) == 1:
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)), size
    return cast(IO[bytes], _Pieces([memoryview(piece) for piece in pieces])), size
