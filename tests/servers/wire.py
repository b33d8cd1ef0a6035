"""Raw requests over one connection, exactly as written, and what came back."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from types import TracebackType
from typing import Self

TIMEOUT = 30
"""Seconds until an answer must have come."""


@dataclass(frozen=True)
class Response:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool
    """Whether the server announced that it closes the connection."""


class Connection:
    """A connection to a server under test. A context manager."""

    def __init__(
        self, address: str | tuple[str, int], *, context: ssl.SSLContext | None = None
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket.settimeout(TIMEOUT)

    def send(self, data: bytes) -> None:
        """Send bytes. A server that has answered already may have stopped listening."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def half_close(self) -> None:
        """Tell the server that nothing more will come."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def receive(self, method: str) -> Response | None:
        """Read one answer to a `method` request; None when the connection ends without one."""
        response = HTTPResponse(self.socket, method=method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionResetError, ConnectionAbortedError):
            return None
        except Exception as error:
            # http.client tells of an end without an answer by RemoteDisconnected, a reset's child.
            raise AssertionError(f"not an HTTP answer: {error!r}") from error
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, headers, body, response.will_close)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def request(
    method: str, target: str | bytes, headers: Sequence[str] = (), body: bytes | None = None
) -> bytes:
    """The bytes of a request; Host is added, and Content-Length where a body comes without."""
    lines = ["Host: localhost", *headers]
    names = {line.partition(":")[0].lower() for line in headers}
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    if isinstance(target, str):
        target = target.encode()
    head = method.encode() + b" " + target + b" HTTP/1.1\r\n"
    return head + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + (body or b"")


def chunked(*parts: bytes) -> bytes:
    """A body in chunked transfer coding, one chunk a part."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
