"""A body whose length nobody knows yet, sent piece by piece."""

from __future__ import annotations

import contextlib
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from .rest_incoming import Answer
from .rest_wire import Response, send_chunk

if TYPE_CHECKING:
    from .rest_connections import Connections


class Upload:
    """A POST on its way, whose length nobody knows yet. It cannot be repeated."""

    def __init__(self, connections: Connections, connection: HTTPConnection) -> None:
        self._connections = connections
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece.

        Raises:
            Refused: the server has answered already.
            BackendConnectionError: the connection broke.
        """
        try:
            send_chunk(self._connection.sock, data)
        except (BrokenPipeError, ConnectionResetError) as error:
            with contextlib.suppress(OSError):
                response = Response(self._connection.sock, "POST")
                response.will_close = True
                answer = Answer(self._connections, self._connection, response, repeated=False)
                raise Refused(answer) from error
            self.abort()
            raise self._connections.lost(error, self._connection) from error
        except OSError as error:
            self.abort()
            raise self._connections.lost(error, self._connection) from error

    def finish(self) -> Answer:
        """End the body and return the answer.

        Raises:
            BackendConnectionError: the connection broke; it is not known what became of the value.
        """
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send_chunk(self._connection.sock, b"")
            response = Response(self._connection.sock, "POST")
        except OSError as error:
            self.abort()
            raise self._connections.lost(error, self._connection) from error
        return Answer(self._connections, self._connection, response, repeated=False)

    def abort(self) -> None:
        """Break off: the server sees a body without an end. Idempotent."""
        self._connection.close()


class Refused(Exception):  # its answer is what the caller raises
    """The server answered before the body was over."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer
