"""Raw sockets for hostile requests: nothing here corrects, encodes or completes what is sent.

`Wire` sends bytes and reads responses strictly: a response that is not exactly one well-formed
HTTP/1.1 message raises `Malformed`.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import time
from dataclasses import dataclass

PATIENCE = 15.0
"""Seconds after which a server that neither answers nor closes is said to hang."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\Z")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z")


class Malformed(Exception):
    """What came back is not a well-formed response."""


class Hangs(Exception):
    """The server neither answered nor closed within PATIENCE."""


class CutOff(Malformed):
    """The connection ended inside a response."""


@dataclass(frozen=True)
class Response:
    """One response, its body whole; `closes` says that no other can follow."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    closes: bool


class Wire:
    """One connection. `received` holds every byte that ever came back."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address, timeout=PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = bytearray()
        self.received = bytearray()
        self.closed = False

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, payload: bytes) -> None:
        """Send all of it, or as much as the server takes before it closes.

        Reads while it writes, as a server may answer before it has taken everything.
        """
        view = memoryview(payload)
        deadline = time.monotonic() + PATIENCE
        self._sock.setblocking(False)
        try:
            while view and not self.closed:
                readable, writable, _ = select.select([self._sock], [self._sock], [], 1)
                if readable:
                    self._take()
                if writable and not self.closed:
                    with contextlib.suppress(BlockingIOError):
                        view = view[self._sock.send(view) :]
                elif time.monotonic() > deadline:
                    raise Hangs(f"does not take {len(view)} of {len(payload)} bytes")
        except (BrokenPipeError, ConnectionResetError):
            self.drain()
        finally:
            self._sock.settimeout(PATIENCE)

    def finish_sending(self) -> None:
        """Close our half; a server that closed already is no error."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def quiet_for(self, seconds: float) -> bool:
        """Whether nothing more arrives for that long."""
        return not self._unread and not select.select([self._sock], [], [], seconds)[0]

    def drain(self) -> bytes:
        """Read until the server closes; return what was not taken as a response."""
        while not self.closed:
            self._take()
        return bytes(self._unread)

    def response(self, *, to_head: bool = False, wait: float = PATIENCE) -> Response | None:
        """The next response past interim ones; None when the server closed without one.

        Raises:
            Malformed: it is not a response, or was cut off.
            Hangs: nothing came for `wait` seconds.
        """
        while True:
            found = self._one(to_head, wait)
            if found is None or found.status >= 200 or found.status == 101:
                return found

    def _one(self, to_head: bool, wait: float) -> Response | None:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if len(self._unread) > 1 << 20:
                raise Malformed(f"no end of headers: {bytes(self._unread[:200])!r}")
            if not self._more(wait):
                if self._unread:
                    raise CutOff(f"cut off in its headers: {bytes(self._unread[:200])!r}")
                return None
        first, *lines = bytes(self._unread[:end]).split(b"\r\n")
        del self._unread[: end + 4]
        matched = _STATUS.match(first)
        if not matched:
            raise Malformed(f"no status line: {first[:200]!r}")
        status = int(matched[1])
        headers: dict[bytes, bytes] = {}
        for line in lines:
            field = _FIELD.match(line)
            if not field:
                raise Malformed(f"no header field: {line[:200]!r}")
            name = field[1].lower()
            if name in headers and name in (b"content-length", b"content-type", b"content-range"):
                raise Malformed(f"{name!r} twice")
            headers[name] = field[2]
        closes = b"close" in headers.get(b"connection", b"").lower() or first[:8] == b"HTTP/1.0"
        body = b""
        if not to_head and status >= 200 and status not in (204, 304):
            body = self._body(headers, closes, wait)
        elif to_head and status == 400 and closes:
            # Whoever cannot parse a request does not know that it was a HEAD.
            body = self.drain()
            self._unread.clear()
        return Response(status, headers, body, closes)

    def _body(self, headers: dict[bytes, bytes], closes: bool, wait: float) -> bytes:
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if coding is not None:
            if length is not None or coding.lower() != b"chunked":
                raise Malformed(f"framed by {coding!r} and length {length!r}")
            chunks = bytearray()
            while size := int(self._until(b"\r\n", wait), 16):
                chunks += self._exactly(size, wait)
                if self._exactly(2, wait) != b"\r\n":
                    raise Malformed("a chunk does not end where it said")
            if self._exactly(2, wait) != b"\r\n":
                raise Malformed("no end after the last chunk")
            return bytes(chunks)
        if length is not None:
            if not length.isdigit():
                raise Malformed(f"Content-Length {length!r}")
            return self._exactly(int(length), wait)
        if not closes:
            raise Malformed("a body without length on a connection that stays open")
        body = self.drain()
        self._unread.clear()
        return body

    def _until(self, mark: bytes, wait: float) -> bytes:
        while (end := self._unread.find(mark)) < 0:
            if not self._more(wait):
                raise CutOff("cut off between chunks")
        line = bytes(self._unread[:end])
        del self._unread[: end + len(mark)]
        return line

    def _exactly(self, size: int, wait: float) -> bytes:
        while len(self._unread) < size:
            if not self._more(wait):
                raise CutOff(f"cut off: {len(self._unread)} of {size} bytes of the body")
        piece = bytes(self._unread[:size])
        del self._unread[:size]
        return piece

    def _more(self, wait: float) -> bool:
        if self.closed:
            return False
        if not select.select([self._sock], [], [], wait)[0]:
            raise Hangs(f"no answer and no close for {wait} s")
        self._take()
        return not self.closed

    def _take(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except TimeoutError:
            raise Hangs(f"no close for {PATIENCE} s") from None
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
        self._unread += data
        self.received += data
