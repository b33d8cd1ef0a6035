"""How requests to Drime and its storage travel: on the kernel's own HTTP, which takes a fraction of
the processor time of a library's, or through a proxy as httpx does it.

A request that makes something is not repeated here; others are on a connection that turned out
dead. Redirections are answers like others.
"""

from __future__ import annotations

import ssl
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import IO, NamedTuple, Protocol, cast
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies

import httpx

from .errors import BackendConnectionError, BackendError, BackendMustBeOpen
from .rest_ahead import Ahead
from .rest_connections import AS_IT_IS, Connections
from .rest_dialing import Dial, TcpConnection, TlsConnection
from .rest_wire import Body, lines_of

Pieces = Sequence[bytes | bytearray]

_JOINED = 64 << 10
_PIECE = 64 << 10

_SILENT = frozenset({"GET", "HEAD"})
_AGAIN = frozenset({"GET", "HEAD", "PUT"})
"""Methods of requests that do no harm when they arrive twice."""

_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})


class Request(NamedTuple):
    """What is sent: its headers beside those of the connection, and its body in pieces."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Pieces = ()


class Answer(Protocol):
    """An answer of which the head has come; whoever asked reads the rest and releases it.

    Reading raises BackendConnectionError where the connection breaks.
    """

    @property
    def status(self) -> int:
        """HTTP's."""

    def header(self, name: str) -> str | None:
        """Return a header, None where there is none."""

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes of the body, b"" at the end."""

    def read_into(self, buffer: memoryview, /) -> int:
        """Read 1 to len(buffer) bytes into a buffer; return how many, 0 at the end."""

    def read_all(self) -> bytes:
        """Return the rest of the body, and let go of the answer."""

    def release(self) -> None:
        """Let go of the answer. Idempotent."""


class Begun(Protocol):
    """A request whose answer is fetched later."""

    def answer(self) -> Answer:
        """Return the answer. Called once. Raises what `Transport.send` does."""

    def drop(self) -> None:
        """Let the answer go, unless it was fetched. Idempotent."""


class Transport(Protocol):
    """Connections to any number of servers, kept for later. Safe for threads."""

    def begin(self, request: Request) -> Begun:
        """Send a GET, and let whoever asks do something else while it is answered.

        Raises what `send` does; what goes wrong on the way may also be raised with the answer.
        """

    def send(self, request: Request) -> Answer:
        """Send a request; return the answer, whatever its status.

        Raises:
            BackendConnectionError: nobody answers, or the connection broke.
            BackendError: the server's certificate is not trusted, or the URL is none.
            BackendMustBeOpen: it was closed.
        """

    def close(self) -> None:
        """End all connections."""


def transport(headers: Mapping[str, str], *, idle: int, timeout: float) -> Transport:
    """Return the way that the environment asks for: httpx's where it names a proxy.

    Args:
        headers: of each request.
        idle: connections kept for each server.
        timeout: seconds without a byte after which a connection counts as broken.
    """
    kind = Proxied if getproxies() else Straight
    return kind(headers, idle=idle, timeout=timeout)


def onward(request: Request, answer: Answer) -> Request | None:
    """Return the request that a redirection asks for, None where it is none."""
    where = answer.header("Location") if answer.status in _REDIRECTIONS else None
    return request._replace(url=urljoin(request.url, where)) if where else None


class Origin(NamedTuple):
    """A server that answers."""

    scheme: str
    host: str
    port: int | None


def origin_of(url: str) -> Origin:
    """Return the server that a URL is on. Raises BackendError for what is no URL of one."""
    return _parted(url)[0]


def _parted(url: str) -> tuple[Origin, str]:
    """Return the server, and the path and query to ask it for."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BackendError("a URL that Drime gave cannot be understood") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError("a URL that Drime gave leads to no server")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or " " in target:
        target = quote(target, safe=string.punctuation)
    return Origin(parts.scheme, parts.hostname, port), target


class Straight:
    """The kernel's own HTTP. The arguments are those of `transport`."""

    def __init__(self, headers: Mapping[str, str], *, idle: int, timeout: float) -> None:
        self._headers = {"Accept": "*/*", "User-Agent": "backupgw", **headers}
        self._idle = idle
        self._timeout = timeout
        self._lock = threading.Lock()
        self._servers: dict[Origin, Connections] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False

    def send(self, request: Request) -> Answer:
        origin, target = _parted(request.url)
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
            if isinstance(cause := error.__cause__, ssl.SSLCertVerificationError):
                raise BackendError(
                    f"the certificate of {origin.host} is not trusted ({cause.verify_message}); "
                    "the variable SSL_CERT_FILE can name a file of authorities to trust"
                ) from error
            raise

    def begin(self, request: Request) -> Begun:
        origin, target = _parted(request.url)
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


class Proxied:
    """httpx's way, which knows proxies. The arguments are those of `transport`."""

    def __init__(self, headers: Mapping[str, str], *, idle: int, timeout: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=idle)
        self._threads = ThreadPoolExecutor(idle, thread_name_prefix="backupgw-drime-proxied")
        self._client = httpx.Client(
            headers={"User-Agent": "backupgw", **headers},
            timeout=httpx.Timeout(timeout, pool=None),
            limits=limits,
        )

    def send(self, request: Request) -> Answer:
        headers = {"Accept-Encoding": "identity", **request.headers}
        if request.body:
            headers["Content-Length"] = str(sum(map(len, request.body)))
        try:
            built = self._client.build_request(
                request.method,
                request.url,
                headers=headers,
                content=_in_pieces(request.body) if request.body else None,
            )
            return _ProxiedAnswer(self._client.send(built, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broken(error) from error
        except RuntimeError as error:  # httpx: the client is closed
            raise BackendMustBeOpen("the place was closed") from error

    def begin(self, request: Request) -> Begun:
        try:
            return _Coming(self._threads.submit(self.send, request))
        except RuntimeError as error:
            raise BackendMustBeOpen("the place was closed") from error

    def close(self) -> None:
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Coming:
    """A request that a thread makes."""

    def __init__(self, coming: Future[Answer]) -> None:
        self._coming = coming
        self._fetched = False

    def answer(self) -> Answer:
        self._fetched = True
        return self._coming.result()

    def drop(self) -> None:
        if not self._fetched and not self._coming.cancel():
            self._coming.add_done_callback(_release)


def _release(coming: Future[Answer]) -> None:
    if coming.exception() is None:
        coming.result().release()


class _ProxiedAnswer:
    """An answer that came over httpx's connections."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._response = response
        self._pieces = response.iter_raw()
        self._held = b""

    def header(self, name: str) -> str | None:
        return cast(str | None, self._response.headers.get(name))

    def read(self, size: int, /) -> bytes:
        try:
            held = self._held or next(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _broken(error) from error
        self._held = held[size:]
        return held[:size]

    def read_into(self, buffer: memoryview, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_all(self) -> bytes:
        try:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        finally:
            self.release()

    def release(self) -> None:
        self._response.close()


def _in_pieces(pieces: Pieces) -> Iterator[bytes]:
    """Yield the bytes of a body, some at a time: httpx copies what it is given."""
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            yield bytes(memoryview(piece)[start : start + _PIECE])


def _broken(error: Exception) -> BackendConnectionError:
    # What httpx says may hold the URL, which is signed.
    return BackendConnectionError(type(error).__name__)
