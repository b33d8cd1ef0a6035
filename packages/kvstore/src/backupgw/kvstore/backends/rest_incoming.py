"""An answer whose body still comes, on a connection that goes back when it was read."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from .errors import BackendConnectionError
from .rest_dialing import reason_of
from .rest_wire import BLOCK, Response

if TYPE_CHECKING:
    from .rest_connections import Connections

DRAIN = 64 << 10
"""Bytes of an unwanted answer that are read to keep its connection; a larger rest closes it."""

ERROR_TEXT = 16 << 10
"""Bytes of an error's text that are looked at."""


class Answer:
    """The answer to a request; its body is read by whoever asked.

    Attributes:
        status: HTTP's.
        repeated: the request may have reached the server more than once.
        left: bytes of the body still to be read, None where the server did not tell.
    """

    def __init__(
        self,
        connections: Connections,
        connection: HTTPConnection,
        response: Response,
        *,
        repeated: bool,
    ) -> None:
        self.status = response.status
        self.repeated = repeated
        self._connections = connections
        self._connection: HTTPConnection | None = connection
        self._response = response
        self.left: int | None = response.length

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, by their names in lower case."""
        return self._response.headers

    def header(self, name: str) -> str | None:
        """Return a header of the answer."""
        return self._response.header(name)

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, b"" at the end.

        Raises:
            BackendConnectionError: the connection broke before the end.
        """
        if self._connection is None:
            return b""
        try:
            data = self._response.read(min(size, BLOCK))
        except OSError as error:
            raise self._broken(error) from error
        self.left = self._response.length
        if not data or self.left == 0:
            self._finish()
        return data

    def read_into(self, buffer: memoryview) -> int:
        """Read 1 to len(buffer) bytes into a buffer; return how many, 0 at the end.

        Raises what `read` does.
        """
        if self._connection is None:
            return 0
        try:
            count = self._response.read_into(buffer)
        except OSError as error:
            raise self._broken(error) from error
        self.left = self._response.length
        if not count or self.left == 0:
            self._finish()
        return count

    def _broken(self, error: OSError) -> BackendConnectionError:
        self.discard()
        return BackendConnectionError(
            f"{self._connections.server}: the connection broke in an answer: {reason_of(error)}"
        )

    def read_all(self, most: int | None = None) -> bytes:
        """Return the rest of the body, `most` bytes at most; then let go of the answer."""
        parts: list[bytes] = []
        held = 0
        while most is None or held < most:
            part = self.read(BLOCK if most is None else most - held)
            if not part:
                break
            parts.append(part)
            held += len(part)
        self.release()
        return b"".join(parts)

    def text(self) -> str:
        """Return what an answer with an error says, on one line."""
        try:
            said = self.read_all(ERROR_TEXT).decode(errors="replace")
        except BackendConnectionError:
            said = ""
        return " ".join(said.split())

    def release(self) -> None:
        """Let go of the answer; the connection is kept where little is left to read. Idempotent."""
        if self.left == 0:  # as of what was stored
            self._finish()
            return
        with contextlib.suppress(BackendConnectionError):
            while self._connection is not None and self.left is not None and self.left <= DRAIN:
                if not self.read(DRAIN):
                    break
        self.discard()

    def discard(self) -> None:
        """Close the connection, unless the answer was read to its end. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._response.will_close:
            connection.close()
        else:
            self._connections.keep(connection)
