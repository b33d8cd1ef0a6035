"""A small HTTP/1.1 client on one blocking socket: what the load generator speaks.

It exists because the generator shares the machine's cores with the server under test: a general
client library would cost more processor time for a 20 KB range than the servers do. It checks
what it must (status, exact length, both body framings) and nothing else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

RECEIVE_BYTES = 1 << 20
MAX_HEAD_BYTES = 64 << 10


class BadResponse(Exception):
    """The server answered with something a benchmark must not count as work done."""


@dataclass(frozen=True)
class Head:
    """Status line and headers (names in lower case) of one response."""

    status: int
    headers: dict[bytes, bytes]


class Connection:
    """One keep-alive connection; `view` holds the bytes of the last response body.

    `capacity` is the largest body in bytes that `body_into_buffer` takes.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, capacity: int = RECEIVE_BYTES
    ) -> None:
        self._sock = socket.create_connection((host, port), timeout=600)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname=host)
        self._buffer = bytearray(capacity + MAX_HEAD_BYTES)
        self.view = memoryview(self._buffer)
        self._tls = tls is not None

    def close(self) -> None:
        self.view.release()
        self._sock.close()

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send the parts of one request, one after the other, without joining the large ones."""
        if len(parts) == 1 or sum(map(len, parts)) < MAX_HEAD_BYTES:
            self._sock.sendall(parts[0] if len(parts) == 1 else b"".join(parts))
            return
        if self._tls:
            for part in parts:
                self._sock.sendall(part)
            return
        sent = self._sock.sendmsg(parts)
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            self._sock.sendall(memoryview(part)[sent:])
            sent = 0

    def bodyless(self, status: int) -> None:
        """Read the response to a HEAD, which must have this status."""
        head_end, have = self._read_head()
        found = self._parse(head_end).status
        if found != status:
            raise BadResponse(f"status {found} instead of {status}: {self._text(have)}")

    def fixed(self, status: int, length: int) -> memoryview:
        """Read a response that must have this status and this exact Content-Length (bytes).

        The body is returned as a view that is valid until the next call.
        """
        head_end, have = self._read_head()
        head = self._parse(head_end)
        if head.status != status:
            raise BadResponse(f"status {head.status} instead of {status}: {self._text(have)}")
        declared = head.headers.get(b"content-length")
        if declared is None or int(declared) != length:
            raise BadResponse(f"Content-Length {declared!r} instead of {length}")
        start, end = head_end, head_end + length
        if have > end:
            raise BadResponse(f"{have - end} bytes more than the declared {length}")
        if end > len(self._buffer):
            raise BadResponse(f"{length} bytes do not fit the buffer")
        receive, view = self._sock.recv_into, self.view
        while have < end:
            got = receive(view[have:end])
            if not got:
                raise BadResponse(f"connection closed {end - have} bytes early")
            have += got
        return view[start:end]

    def discard(self, status: int, length: int) -> None:
        """Read a response like `fixed`, however long, and keep nothing of it."""
        head_end, have = self._read_head()
        head = self._parse(head_end)
        if head.status != status:
            raise BadResponse(f"status {head.status} instead of {status}: {self._text(have)}")
        declared = head.headers.get(b"content-length")
        if declared is None or int(declared) != length:
            raise BadResponse(f"Content-Length {declared!r} instead of {length}")
        left = length - (have - head_end)
        view = self.view[:RECEIVE_BYTES]
        while left > 0:
            got = self._sock.recv_into(view[: min(left, RECEIVE_BYTES)])
            if not got:
                raise BadResponse(f"connection closed {left} bytes early")
            left -= got
        if left < 0:
            raise BadResponse(f"{-left} bytes more than the declared {length}")

    def stream(self, status: int) -> tuple[Head, bytearray]:
        """Read a response of any length and either framing; chunks are joined.

        Returns as soon as the last byte has arrived; the caller measures around it.
        """
        head_end, have = self._read_head()
        head = self._parse(head_end)
        raw = bytearray(self.view[head_end:have])
        if head.status != status:
            raise BadResponse(f"status {head.status} instead of {status}: {self._text(have)}")
        if b"chunked" in head.headers.get(b"transfer-encoding", b"").lower():
            while not raw.endswith(b"\r\n0\r\n\r\n") and raw != b"0\r\n\r\n":
                self._more(raw)
            return head, _unchunk(raw)
        length = int(head.headers[b"content-length"])
        while len(raw) < length:
            self._more(raw)
        if len(raw) != length:
            raise BadResponse(f"{len(raw) - length} bytes more than the declared {length}")
        return head, raw

    def first_byte(self) -> None:
        """Wait for the first byte of the response without taking it (plain TCP only)."""
        if not self._sock.recv(1, socket.MSG_PEEK):
            raise BadResponse("connection closed before a response")

    def _more(self, raw: bytearray) -> None:
        got = self._sock.recv_into(self.view[:RECEIVE_BYTES])
        if not got:
            raise BadResponse("connection closed inside a body")
        raw += self.view[:got]

    def _read_head(self) -> tuple[int, int]:
        have = 0
        while True:
            got = self._sock.recv_into(self.view[have:])
            if not got:
                raise BadResponse("connection closed before a response")
            have += got
            end = self._buffer.find(b"\r\n\r\n", max(0, have - got - 3), have)
            if end >= 0:
                return end + 4, have
            if have > MAX_HEAD_BYTES:
                raise BadResponse("endless headers")

    def _parse(self, head_end: int) -> Head:
        first, *lines = bytes(self.view[: head_end - 4]).split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return Head(int(first[9:12]), headers)

    def _text(self, have: int) -> str:
        return bytes(self.view[: min(have, 600)]).decode("latin-1")


def _unchunk(raw: bytearray) -> bytearray:
    """Join the chunks of a whole chunked body; raise BadResponse where the framing is wrong."""
    body = bytearray()
    at = 0
    with memoryview(raw) as view:
        while True:
            line_end = raw.find(b"\r\n", at)
            if line_end < 0:
                raise BadResponse("a chunk without a size line")
            size = int(bytes(view[at:line_end]).split(b";")[0], 16)
            at = line_end + 2
            if size == 0:
                return body
            body += view[at : at + size]
            at += size
            if bytes(view[at : at + 2]) != b"\r\n":
                raise BadResponse("a chunk longer than it said")
            at += 2
