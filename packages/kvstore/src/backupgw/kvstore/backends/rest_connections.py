"""Connections to an HTTP server, a borgstore server most of all: pooled, over TCP, TLS or a
command's standard streams.

Requests are repeated when a connection breaks; whoever sends one makes sure that repeating it does
no harm. A connection that was idle and turns out to be dead costs nothing: the server may end idle
ones at any time.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPConnection

from .errors import BackendConnectionError, BackendError, BackendMustBeOpen
from .rest_dialing import CommandConnection, Dial, ProgramConnection, reason_of, wait_at_most
from .rest_incoming import Answer
from .rest_upload import Upload
from .rest_waiting import Waiting
from .rest_wire import Body, Response, begin, lines_of, send

logger = logging.getLogger(__name__)

AS_IT_IS = "Accept-Encoding: identity\r\n"
"""Keeps a proxy from compressing an item on its way here."""


class Connections:
    """Where requests are sent. Any number of threads may send at once.

    Args:
        server: the server's name in messages; without credentials.
        dial: makes connections, all to the same host.
        headers: sent with each request.
        idle: connections kept for later.
        tries: how often a request is repeated after its connection broke.
        wait: seconds before each repetition.
    """

    def __init__(
        self,
        server: str,
        dial: Dial,
        headers: Mapping[str, str],
        *,
        idle: int,
        tries: int,
        wait: float,
    ) -> None:
        self.server = server
        self._dial = dial
        self._host = ""
        self._lines = lines_of(headers)
        self._waiting = Waiting()
        self._most_idle = idle
        self._tries = tries
        self._wait = wait
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._closed = threading.Event()
        self._reached = False

    def request(
        self,
        method: str,
        target: str,
        *,
        lines: str = "",
        body: Body | None = None,
        size: int = 0,
        timeout: float,
        once: bool = False,
    ) -> Answer:
        """Send a request and return the answer, of which only the head was read.

        Args:
            target: path and query, quoted.
            lines: more headers, as `rest_wire.lines_of` makes them.
            body: a file is sent from its start, whole.
            size: bytes of the body.
            timeout: seconds without a byte after which the connection counts as broken.
            once: it must not reach the server twice, so it is not repeated in any case.

        Raises:
            BackendConnectionError: no answer, though it was tried again.
            BackendMustBeOpen: the pool is closed.
        """
        lines = self._lines + lines
        if method == "GET":
            lines += AS_IT_IS
        elif body is not None or method == "POST":
            lines += f"Content-Length: {size}\r\n"
        repeated = 0
        broken = False
        while True:
            connection, used = self.take(timeout)
            if used and once and _left(connection.sock):
                connection.close()
                continue
            try:
                lines_sent = self._host + lines
                response = _send(connection, method, target, lines_sent, body, self._waiting)
            except OSError as error:
                connection.close()
                self._give_up(error, connection)
                broken = True
                if once:
                    raise self._lost(error, connection) from error
                if used:
                    self._drop_idle()  # its companions are as old, and are most likely dead
                    continue
                if not self._reached or repeated == self._tries:
                    raise self._lost(error, connection) from error
                repeated += 1
                logger.warning(
                    "%s: %s; trying again (%d of %d)",
                    *(self.server, reason_of(error), repeated, self._tries),
                )
                if self._closed.wait(self._wait):
                    raise BackendMustBeOpen(self.server) from error
                continue
            self._reached = True
            return Answer(self, connection, response, repeated=broken)

    def upload(self, target: str, headers: Mapping[str, str], *, timeout: float) -> Upload:
        """Begin a POST whose body is sent piece by piece, on a connection of its own.

        Raises:
            BackendConnectionError: nobody answers.
            BackendMustBeOpen: the pool is closed.
        """
        if self._closed.is_set():
            raise BackendMustBeOpen(self.server)
        connection = self.dialed(timeout)
        try:
            connection.connect()
            begin(connection.sock, "POST", target, self._host + self._lines + lines_of(headers))
        except OSError as error:
            connection.close()
            raise self._lost(error, connection) from error
        return Upload(self, connection)

    def lost(self, error: Exception, connection: HTTPConnection) -> BackendConnectionError:
        """Return the error that a broken connection is."""
        return self._lost(error, connection)

    def keep(self, connection: HTTPConnection) -> None:
        """Take a connection back whose answer was read to its end."""
        with self._lock:
            if not self._closed.is_set() and len(self._idle) < self._most_idle:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle now, and the others when they come back. Ends waiting requests."""
        self._closed.set()
        self._drop_idle()

    def take(self, timeout: float) -> tuple[HTTPConnection, bool]:
        """Return a connection, which may not be connected yet, and whether it was used before.

        Raises:
            BackendMustBeOpen: the pool is closed.
        """
        if self._closed.is_set():
            raise BackendMustBeOpen(self.server)
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return self.dialed(timeout), False
        if connection.timeout != timeout:
            connection.timeout = timeout
            wait_at_most(connection.sock, timeout)
        return connection, True

    def dialed(self, timeout: float) -> HTTPConnection:
        """Return a new connection, not connected yet."""
        connection = self._dial(timeout)
        self._host = f"Host: {_host(connection)}\r\n"
        return connection

    @property
    def lines(self) -> str:
        """The headers of every request, as of the last connection that was made."""
        return self._host + self._lines

    def _drop_idle(self) -> None:
        with self._lock:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.close()

    def _give_up(self, error: Exception, connection: HTTPConnection) -> None:
        """Raise for what no repetition mends."""
        if isinstance(error, ssl.SSLCertVerificationError):
            raise BackendError(
                f"{self.server}: its certificate is not trusted ({error.verify_message}); "
                "name the authority that signed it with cacert"
            ) from error
        if isinstance(connection, CommandConnection) and isinstance(error, FileNotFoundError):
            raise BackendError(f"{connection.program}: there is no such command") from error

    def _lost(self, error: Exception, connection: HTTPConnection) -> BackendConnectionError:
        said = connection.said() if isinstance(connection, ProgramConnection) else ""
        return BackendConnectionError(
            f"{self.server}: {reason_of(error)}{f'; it said: {said}' * bool(said)}"
        )


def _send(
    connection: HTTPConnection,
    method: str,
    target: str,
    lines: str,
    body: Body | None,
    waiting: Waiting,
) -> Response:
    if body is not None and not isinstance(body, bytes | memoryview):
        body.seek(0)
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    try:
        send(sock, method, target, lines, body)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a body may close before it came to its end; the answer tells why.
        with contextlib.suppress(OSError):
            response = Response(sock, method)
            response.will_close = True
            return response
        raise
    return Response(sock, method, waiting)


def _left(sock: socket.socket) -> bool:
    """Whether the other end of an idle connection has closed it; it has nothing else to say."""
    looking = select.poll()
    looking.register(sock, select.POLLIN)
    return bool(looking.poll(0))


def _host(connection: HTTPConnection) -> str:
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return host if connection.port == connection.default_port else f"{host}:{connection.port}"
