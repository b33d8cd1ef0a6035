"""One request and its answer: the ASGI side of a connection.

It differs from uvicorn's in that a body is handed over without being copied twice, that the
application is told by an exception when nobody listens any more (ASGI 2.4), that HTTP/1.0 never
gets chunks, and that it knows what the access log wants to know.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from backupgw.runtime.http.answer_lines import BAD_VALUE, STATUS_LINES, header_name
from backupgw.runtime.http.direct_body import BodyLost, Consume, DirectBody
from backupgw.runtime.http.file_body import FILE_BODY, FileBody
from backupgw.runtime.http.stream_body import STREAM_BODY, StreamBody
from backupgw.runtime.http.thread_body import ThreadBody
from backupgw.runtime.threads import Threads

if TYPE_CHECKING:
    from backupgw.runtime.http.protocol import GatewayProtocol
    from backupgw.runtime.http.upgrade import Tunnel

logger = logging.getLogger(__name__)

ABANDONED = 499  # nginx's status for a client that left before its answer began
PIECE_COST = (
    64  # bytes; what CPython needs to keep one piece of a body, so that many tiny ones count
)
JOIN_LIMIT = 64 * 1024  # bytes; below, one buffer for head and body costs less than two writes
ANSWER_AT_ONCE = "backupgw.answer"
"""Key of the ASGI scope: `Exchange.answer_at_once`, for answers that are whole and small."""
ANSWER_LINES = "backupgw.answer_lines"
"""Key of the ASGI scope: `Exchange.answer_lines`, the same for heads that are written already."""
DISCONNECT = {"type": "http.disconnect"}


class ClientGone(OSError):
    """Raised by send() when the client has left (ASGI 2.4 asks for an OSError)."""


class Exchange:
    """A request and its answer; `receive` and `send` are what the application gets."""

    __slots__ = (
        "body_left", "buffered", "chunked", "content_length", "continue_wanted", "direct_body",
        "disconnected", "end_delivered", "event", "head", "headers", "keep_alive", "method",
        "more_body", "parts", "protocol", "received", "reported", "response_complete",
        "response_started", "scope", "sent", "started", "status", "target", "thread_body", "tunnel",
    )  # fmt: skip

    def __init__(
        self,
        protocol: GatewayProtocol,
        scope: dict[str, Any],
        target: bytes,
        content_length: int | None,
        keep_alive: bool,
        continue_wanted: bool,
    ) -> None:
        self.protocol = protocol
        self.scope = scope
        self.method: str = scope["method"]
        self.target = target
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.content_length = content_length  # None: chunked
        self.keep_alive = keep_alive
        self.continue_wanted = continue_wanted
        self.started = perf_counter()
        # The request's body
        self.parts: list[bytes] = []
        self.buffered = 0
        self.received = 0
        self.more_body = True
        self.end_delivered = False
        self.event: asyncio.Event | None = None
        self.direct_body: DirectBody | None = None  # while one is being taken
        self.disconnected = False
        # The answer
        self.status = 0
        self.head: bytes | None = None
        self.chunked = False
        self.body_left: int | None = None  # None: as much as comes
        self.sent = 0
        self.thread_body: ThreadBody | None = None  # while one is being sent
        self.response_started = False
        self.response_complete = False
        self.tunnel: Tunnel | None = None
        self.reported = False

    # What the access log asks for

    @property
    def client(self) -> str:
        """The client's address, without its port; empty on a unix socket."""
        client = self.scope["client"]
        return client[0] if client else ""

    @property
    def user(self) -> str | None:
        """Who the service found the client to be: `scope["state"]["user"]`."""
        user = self.scope["state"].get("user")
        return user if isinstance(user, str) else None

    @property
    def http_version(self) -> str:
        """`1.0` or `1.1`."""
        version: str = self.scope["http_version"]
        return version

    @property
    def seconds(self) -> float:
        """Time since the head of the request was complete."""
        return perf_counter() - self.started

    # The connection's side

    def wake(self) -> None:
        """Let a waiting receive() look again."""
        if self.event is not None:
            self.event.set()

    def disconnect(self) -> None:
        """The client is gone, or what it sends can no longer be trusted.

        What came before is still handed over: a broken upload may be carried on later.
        """
        self.disconnected = True
        self.wake()
        if self.thread_body is not None:
            self.thread_body.wake()
        if self.direct_body is not None:
            self.direct_body.wake()

    def answered_nowait(self) -> bool:
        """Let the application answer in a plain call, where it can: see `first_step`."""
        answer = self.protocol.host.answer_nowait
        if answer is None:
            return False
        parts = self.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            return answer(self.scope, body)
        except Exception:  # noqa: BLE001 - the ordinary way meets it, too, and has words for it
            return False

    async def run(self, app: Any) -> None:
        """Let the application answer; whatever it does, the connection ends in a known state."""
        try:
            await app(self.scope, self.receive, self.send)
            if self.tunnel is not None:
                self.tunnel.close()
                self.response_complete = True
        except ClientGone:
            logger.debug("%s %s: the client left", self.method, self.scope["path"])
        except asyncio.CancelledError:
            # Only a stop that has run out of time cancels (graceful_timeout).
            self._fail(503, "The server is stopping.")
        except Exception as error:
            # The last handler above the application: the client learns that it failed, the log
            # learns why.
            if self.disconnected:
                logger.info("%s %s: the client left (%s)", self.method, self.scope["path"], error)
            else:
                logger.exception("%s %s failed", self.method, self.scope["path"])
            self._fail(500, "Internal server error.")
        else:
            if not self.response_complete and not self.disconnected:
                logger.error("%s %s: answer not completed", self.method, self.scope["path"])
                self._fail(500, "Internal server error.")
        finally:
            self.report()

    def _fail(self, status: int, text: str) -> None:
        """Answer for the application, or, where its answer has begun, break the connection off."""
        if self.disconnected or self.response_complete:
            return
        if self.response_started and self.head is None:
            # Only a connection that ends early tells the client that the answer is not whole.
            self.protocol.transport.abort()
            return
        self.keep_alive = False
        self.head = None
        self.response_started = True
        self.status = status
        self.sent = self.protocol.write_error(status, text)
        self._complete()

    def report(self) -> None:
        """Count and log, once."""
        if not self.reported:
            self.reported = True
            if not self.status:
                self.status = ABANDONED
            self.protocol.host.finished(self)

    # The application's side

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of the body, or `http.disconnect`."""
        protocol = self.protocol
        if self.continue_wanted and not self.disconnected:
            self.continue_wanted = False
            protocol.write_continue()
        while not self.parts and (self.more_body or self.end_delivered):
            if self.disconnected or self.response_complete:
                return DISCONNECT
            if self.event is None:
                self.event = asyncio.Event()
            self.event.clear()
            await self.event.wait()
        if self.response_complete or (self.disconnected and not self.parts):
            return DISCONNECT
        parts = self.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self.parts = []
        self.buffered = 0
        self.end_delivered = not self.more_body
        if not self.disconnected:
            protocol.body_taken(self)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def take_body(self, consume: Consume, threads: Threads) -> None:
        """Let threads take the body from the socket: see `direct_body.Take`."""
        protocol = self.protocol
        if self.continue_wanted and not self.disconnected:
            self.continue_wanted = False
            protocol.write_continue()
        before, self.parts, self.buffered = self.parts, [], 0
        if self.disconnected or self.content_length is None:
            for part in before:
                await threads.run(consume, part)
            raise ClientGone("the client has closed the connection")
        if not self.more_body:
            # All of it has come, and the parser may be in the next head by now.
            for part in before:
                await threads.run(consume, part)
            self.end_delivered = True
            protocol.body_taken(self)
            return
        protocol.flow.pause_reading()
        counted = self.received - sum(map(len, before))
        body = self.direct_body = DirectBody(self.content_length - counted, before)
        sock = os.dup(protocol.transport.get_extra_info("socket").fileno())
        try:
            while body.left:
                protocol.deadline = inf  # no client pays for a slow disk
                await body.receive(sock, consume, threads)
                self.received = self.content_length - body.left
                if body.left:
                    protocol.deadline = protocol.host.clock + protocol.stall
                    await body.wait(sock)
                if self.disconnected:
                    raise ClientGone("the client has closed the connection")
        except BodyLost as error:
            if error.reset:
                protocol.transport.abort()
            else:
                protocol.refuse(400, "The body of the request ended early.")
            raise ClientGone("the client has closed the connection") from error
        except BaseException:
            self.keep_alive = False  # nobody knows where the next request begins
            raise
        finally:
            self.direct_body = None
            os.close(sock)
        protocol.body_ended(self)

    async def upgrade(self, headers: Sequence[tuple[bytes, bytes]]) -> Tunnel:
        """Answer 101 and let the application have the connection: see `upgrade`."""
        if self.disconnected:
            raise ClientGone("the client has closed the connection")
        if self.response_started:
            raise RuntimeError("the application answers twice")
        content = [STATUS_LINES[101]]
        for given, value in headers:
            if BAD_VALUE.search(value):
                raise RuntimeError(f"the application sent a malformed header {given!r}")
            content += (header_name(given), b": ", value, b"\r\n")
        content.append(self.protocol.host.end_of_head)
        self.response_started = True
        self.status = 101
        self.protocol.transport.write(b"".join(content))
        self.tunnel = self.protocol.upgraded()
        return self.tunnel

    async def send(self, message: dict[str, Any]) -> None:
        """Send the head or a piece of the body of the answer."""
        protocol = self.protocol
        if self.disconnected:
            raise ClientGone("the client has closed the connection")
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"expected http.response.start, the application sent {kind}")
            self._start(message["status"], message.get("headers", ()))
            return
        if kind == FILE_BODY and self.head is not None:
            file = FileBody(message["fd"], message["offset"], message["size"])
            await self._send_by_threads(self.head, file, protocol.host.file_threads)
            return
        if kind == STREAM_BODY and self.head is not None:
            stream = StreamBody(message["read_into"], message["size"])
            await self._send_by_threads(self.head, stream, message["threads"])
            return
        if self.response_complete or kind != "http.response.body":
            raise RuntimeError(f"the application sent {kind} out of turn")
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if self.method == "HEAD":
            body = b""
        elif self.body_left is not None:
            self.body_left -= len(body)
            if self.body_left < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
        self.sent += len(body)
        if self.chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        head = self.head
        write = protocol.transport.write
        if head is not None:
            self.head = None
            if len(body) <= JOIN_LIMIT:
                write(head + body)
            else:
                write(head)
                write(body)
        elif body:
            write(body)
        if not more:
            if self.body_left and self.method != "HEAD":
                raise RuntimeError("the answer is shorter than its Content-Length")
            self._complete()
        elif protocol.flow.write_paused:
            await protocol.flow.drain()

    def answer_at_once(self, status: int, headers: Any, body: bytes | bytearray) -> None:
        """Send a whole answer, whose headers tell its length, without waiting for the client."""
        self._require_unanswered()
        self._start(status, headers)
        head, self.head = self.head, None
        assert head is not None
        if self.method != "HEAD" and self.body_left != len(body):
            raise RuntimeError("the answer is not as long as its Content-Length")
        self._finish(head, body)

    def answer_lines(self, status: int, lines: bytes, body: bytes | bytearray) -> None:
        """Send a whole answer without waiting for the client.

        Args:
            lines: of the head, each with its line's end: names in lower case, nothing of the
                framing, and nothing that a client chose. They are not looked at.
        """
        self._require_unanswered()
        protocol = self.protocol
        if self.more_body or protocol.host.stopping:
            self._end_where_needed(protocol.host.stopping)
        self.status = status
        self.response_started = True
        self._finish(
            b"%b%bcontent-length: %d\r\n%b%b"
            % (
                STATUS_LINES[status],
                lines,
                len(body),
                b"" if self.keep_alive else b"connection: close\r\n",
                protocol.host.end_of_head,
            ),
            body,
        )

    def _require_unanswered(self) -> None:
        if self.disconnected:
            raise ClientGone("the client has closed the connection")
        if self.response_started:
            raise RuntimeError("the application answers twice")

    def _finish(self, head: bytes, body: bytes | bytearray) -> None:
        """Write a whole answer."""
        protocol = self.protocol
        if self.method == "HEAD":
            protocol.write_at_once(head)
        else:
            self.sent = len(body)
            if len(body) <= JOIN_LIMIT:
                protocol.write_at_once(head + body if body else head)
            else:
                protocol.transport.write(head)
                protocol.transport.write(body)
        self._complete()

    async def _send_by_threads(self, head: bytes, body: ThreadBody, threads: Threads) -> None:
        if self.chunked or (self.method != "HEAD" and self.body_left not in (body.left, None)):
            raise RuntimeError("the body is not as long as the answer's Content-Length")
        self.head = None
        transport, flow = self.protocol.transport, self.protocol.flow
        transport.write(head)
        if self.method == "HEAD":
            self._complete()
            return
        # What the transport still holds goes first: threads write past it.
        while transport.get_write_buffer_size() and not transport.is_closing():
            transport.set_write_buffer_limits(0)
            await flow.drain()
        if transport.is_closing():
            raise ClientGone("the client has closed the connection")
        transport.set_write_buffer_limits()
        sock = os.dup(transport.get_extra_info("socket").fileno())
        self.thread_body = body
        try:
            while body.left:
                if self.disconnected:
                    raise ClientGone("the client has closed the connection")
                self.sent += await body.send(sock, threads)
        except ConnectionError as error:
            transport.abort()
            raise ClientGone("the client has closed the connection") from error
        finally:
            self.thread_body = None
            os.close(sock)
        self._complete()

    def _start(self, status: int, headers: Any) -> None:
        content = [STATUS_LINES[status]]
        close = self.protocol.host.stopping
        length: int | None = None
        chunked = False
        for given, value in headers:
            name = header_name(given)
            if BAD_VALUE.search(value):
                raise RuntimeError(f"the application sent a malformed header {given!r}")
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = value.lower() == b"chunked"
                continue  # framing is ours
            elif name == b"connection":
                close = close or b"close" in value.lower()
                continue
            content += (name, b": ", value, b"\r\n")
        if self.method == "HEAD" or status in (204, 304):
            self.body_left = 0
        elif length is not None and not chunked:
            self.body_left = length
        elif self.http_version == "1.0":
            close = True  # the end of the connection is the end of the body
        else:
            self.chunked = True
            content.append(b"transfer-encoding: chunked\r\n")
        self._end_where_needed(close)
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        content.append(self.protocol.host.end_of_head)
        self.status = status
        self.head = b"".join(content)
        self.response_started = True

    def _end_where_needed(self, close: bool) -> None:
        """Decide whether the connection ends with this answer; `close`: it has to."""
        if self.continue_wanted:
            # The client may or may not send its body now (RFC 9110, 10.1.1): nobody could tell
            # whether what comes next is that body.
            close = True
        elif self.more_body and self.content_length is not None:
            close = close or self.content_length - self.received > self.protocol.drain_limit
        if close:
            self.keep_alive = False

    def _complete(self) -> None:
        self.response_complete = True
        self.wake()
        self.report()
        self.protocol.response_complete(self)
