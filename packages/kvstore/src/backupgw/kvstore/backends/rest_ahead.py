"""Requests that wait for less: a body goes out while it comes, two requests in one breath."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import NamedTuple

from .rest_connections import Connections
from .rest_incoming import Answer
from .rest_wire import Body, Response, send


class Ahead:
    """A request with a body whose length is known, sent as far as it has come.

    Nothing is raised while it is sent: whoever holds the whole body learns at the end that he has
    to send it again. A connection that turns out to be dead is replaced once.

    Args:
        connections: of the server.
        method, target: what is asked; the target quoted.
        lines: headers, the body's length among them.
        timeout: seconds without a byte after which the connection counts as broken.
    """

    def __init__(
        self, connections: Connections, method: str, target: str, lines: str, timeout: float
    ) -> None:
        self._connections = connections
        self._method = method
        self._target = target
        self._lines = lines
        self._timeout = timeout
        self._connection: HTTPConnection | None = None
        self._fresh = False
        self._broken = False
        self._begun = False
        self.sent = 0
        """Bytes of the body that are on their way."""

    def send(self, body: bytearray | bytes, end: int) -> bool:
        """Send the body up to there; False where the connection is broken."""
        while not self._broken:
            try:
                self._go_on(body, end)
            except OSError:
                again = not self._fresh  # it was idle, and its server may have left meanwhile
                self._close()
                self.sent, self._begun, self._fresh = 0, False, True
                self._broken = not again
            else:
                return True
        return False

    def _go_on(self, body: bytearray | bytes, end: int) -> None:
        connection = self._connection
        if connection is None:
            if self._fresh:
                connection = self._connections.dialed(self._timeout)
            else:
                connection, used = self._connections.take(self._timeout)
                self._fresh = not used
            self._connection = connection
        if connection.sock is None:
            connection.connect()
        if not self._begun:
            lines = self._connections.lines + self._lines
            send(connection.sock, self._method, self._target, lines, None)
            self._begun = True
        with memoryview(body) as whole, whole[self.sent : end] as piece:
            connection.sock.sendall(piece)
        self.sent = end

    def finish(self, body: bytearray | bytes) -> Answer | None:
        """Send the rest, and return the answer; None where not all of it could be sent.

        Raises:
            OSError: all was sent, and no answer came.
        """
        if not self.send(body, len(body)):
            return None
        connection, self._connection, self._broken = self._connection, None, True
        assert connection is not None
        try:
            response = Response(connection.sock, self._method)
        except OSError:
            connection.close()
            raise
        return Answer(self._connections, connection, response, repeated=False)

    def stop(self) -> None:
        """Break off: the server sees a body without an end. Idempotent."""
        self._broken = True
        self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Pair(NamedTuple):
    """What came of two requests; None where no answer did."""

    look: Response | None
    answer: Answer | None


def look_and_do(
    connections: Connections,
    method: str,
    target: str,
    *,
    look: str,
    lines: str,
    body: Body | None,
    timeout: float,
) -> Pair:
    """Ask about a target by HEAD, and right behind that, on the same connection and without
    waiting, for something to be done with it.

    A server answers the requests of a connection in their order (RFC 9112, 9.3.2), so the first
    answer tells what there was before. Both take one round trip. Where one of the answers is
    missing, the request may have been done all the same.

    Args:
        look, lines: the headers of the two, the body's length among them.

    Raises:
        BackendMustBeOpen: the pool is closed.
    """
    connection, _ = connections.take(timeout)
    seen: Response | None = None
    try:
        if connection.sock is None:
            connection.connect()
        sock = connection.sock
        common = connections.lines
        head = f"HEAD {target} HTTP/1.1\r\n{common}{look}\r\n".encode("latin-1")
        send(sock, method, target, common + lines, body, before=head)
        seen = Response(sock, "HEAD")
        if seen.last:
            connection.close()
            return Pair(seen, None)
        response = Response(sock, method, held=seen.beyond)
    except OSError:
        connection.close()
        return Pair(seen, None)
    return Pair(seen, Answer(connections, connection, response, repeated=False))
