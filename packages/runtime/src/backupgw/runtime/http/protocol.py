"""One HTTP/1.1 connection: uvicorn's httptools protocol with limits.

Stock uvicorn 0.54 takes headers of any size for any time, drains an unread body for ever, lets a
client pipeline without bound, holds 64 KiB of a body, answers a malformed pipelined request out of
turn, takes trailers for headers and hides the TLS peer. This subclass changes that and nothing
else; tests/runtime/test_http_uvicorn.py names what of uvicorn it stands on.

llhttp refuses by itself what smuggles: duplicated, signed, listed or overflowing Content-Length,
Content-Length beside Transfer-Encoding, folded headers, bare CR or LF, control bytes and spaces in
the target. The rest is refused here (RFC 9112, 3.2 and 6.1). After any refusal nothing more of the
connection is read as a request.

No timer runs per request: each connection has one deadline on the host's clock, looked at by
`HostServer` a few times a second.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from backupgw.runtime.http.direct_body import DIRECT_BODY, LEAST
from backupgw.runtime.http.ending import EndingProtocol
from backupgw.runtime.http.exchange import (
    ANSWER_AT_ONCE,
    ANSWER_LINES,
    PIECE_COST,
    Exchange,
)
from backupgw.runtime.http.file_body import FILE_BODY
from backupgw.runtime.http.first_step import begin
from backupgw.runtime.http.peer import tls_extension
from backupgw.runtime.http.request_head import (
    FRAMING_HEADERS,
    Refused,
    read_framing,
    split_target,
)
from backupgw.runtime.http.sending import NO_FD, send_now
from backupgw.runtime.http.state import HostState
from backupgw.runtime.http.stream_body import STREAM_BODY
from backupgw.runtime.http.upgrade import UPGRADE, WINDOW, HttpLink, Tunnel

logger = logging.getLogger(__name__)

PIPELINE_LIMIT = 16  # requests that wait behind the one being answered; then the connection ends
READ_SIZE = 256 * 1024  # bytes; the most that uvloop hands over at once
ASGI = {"version": "3.0", "spec_version": "2.4"}
PLAIN_EXTENSIONS: dict[str, Any] = {FILE_BODY: {}, STREAM_BODY: {}}


class GatewayProtocol(EndingProtocol):
    """A connection.

    At any moment it is between messages, in a head (`reading_head`, `head_begun`), in a body, or
    `deaf`: what comes then is thrown away until the client hangs up or the drain limits end it.
    """

    headers: list[tuple[bytes, bytes]]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        host: HostState,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.host = host
        options = host.options
        self.head_limit = options.max_header_bytes
        self.header_timeout = options.header_timeout
        self.idle_timeout = options.idle_timeout
        self.window = options.body_window
        self.stall = options.body_stall_timeout
        self.drain_limit = options.drain_limit
        self.running: Exchange | None = None  # the request being answered
        self.waiting: list[Exchange] = []
        self.held = False  # nothing is begun or read until the client takes what it was sent
        self.deadline = inf
        self.reading_head = True
        self.head_begun = False
        self.head_bytes = 0  # received of the head in earlier reads
        self.head_slack = 0  # size of the read in whose middle the head began
        self.read_size = 0
        self.mid_read = False  # the current read did not begin with a head
        self.idle_bytes = 0  # received in a body since its last byte: framing, trailers
        self.drain_left = self.drain_limit
        self.deaf = False
        self.extensions = PLAIN_EXTENSIONS
        self.begin: Exchange | None = None  # what is begun when the current read is parsed
        self.address: str | None = None
        self.write_mark = (0.0, 0)
        self.framing: list[tuple[bytes, bytes]] = []
        self.fd = NO_FD
        self.early: bytearray | None = None  # what follows a request to upgrade, until its answer
        self.tunnel: Tunnel | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host, options = self.host, self.host.options
        if self.client is not None:
            address, port = self.client
            address = address.removeprefix("::ffff:")  # IPv4 on a socket for both families
            self.client = (address, port)
            self.address = address
            host.addresses.add(address, 1)
        if self.scheme == "https":
            self.extensions = {"tls": tls_extension(transport.get_extra_info("ssl_object"))}
        else:
            self.fd = transport.get_extra_info("socket").fileno()
        self.deadline = host.clock + options.header_timeout
        limit, per_address = host.most_connections, options.max_connections_per_address
        if (limit and len(self.connections) > limit) or (
            per_address and self.address and host.addresses.total(self.address) > per_address
        ):
            self.deaf = True
            self.answer_unparsed(503, "Too many connections; close some and try again.")
            transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connections.discard(self)
        if self.host.connection_lost is not None:
            self.host.connection_lost()
        self.deaf = True
        self.deadline = inf
        if self.address is not None:
            self.host.addresses.add(self.address, -1)
            self.address = None
        for exchange in (self.running, *self.waiting):
            if exchange is not None and not exchange.response_complete:
                exchange.disconnect()
        self.waiting.clear()
        if self.tunnel is not None:
            self.tunnel.end()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it refers to us

    # What is received

    def data_received(self, data: bytes) -> None:
        self._receive(data)
        if self.begin is not None:
            # Not in the middle of parsing: the answer may end the connection.
            exchange, self.begin = self.begin, None
            if exchange.more_body or not exchange.answered_nowait():
                task = begin(self.loop, exchange.run(self.app))
                if task is not None:
                    self._keep(task)

    def _receive(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.feed(data)
            return
        if self.early is not None:
            self._keep_early(data)
            return
        if self.deaf:
            self.drain(len(data))
            return
        self.mid_read = not self.reading_head
        self.read_size = len(data)
        self.idle_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Whether answered with the upgrade or without (RFC 9110, 7.8), it is the last request.
            newest = self.newest()
            self.finish_after_newest()
            if not newest.response_complete:
                self.early = bytearray()
                self._keep_early(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, Refused):
                self.refuse(cause.status, cause.text)
            else:
                logger.debug("malformed request from %s: %s", self.address, error)
                self.refuse(400, "Malformed HTTP request.")
            return
        if self.reading_head:
            if self.mid_read:
                self.head_slack = len(data)
            else:
                self.head_bytes += len(data)
                if self.head_bytes > self.head_limit:
                    self.refuse(431, f"The headers are larger than {self.head_limit} bytes.")
        elif self.idle_bytes > self.head_limit + READ_SIZE:
            self.refuse(400, "Too many bytes around the body.")

    def _keep_early(self, data: bytes) -> None:
        assert self.early is not None
        self.early += data
        if len(self.early) > WINDOW:
            self.flow.pause_reading()

    def upgraded(self) -> Tunnel:
        """The 101 is written: what comes from here on is the tunnel's."""
        early, self.early = bytes(self.early or b""), None
        self.tunnel = Tunnel(HttpLink(self.transport, self.flow), early)
        self.flow.resume_reading()
        if self.host.stopping:
            self.tunnel.end()
        return self.tunnel

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.framing = []
        self.head_begun = True
        self.head_bytes = self.head_slack = 0
        if self.running is None or self.running.response_complete:
            self.deadline = self.host.clock + self.header_timeout

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.reading_head:
            return  # a trailer: nobody asked for it, and it must not pass for a header
        name = name.lower()
        self.headers.append((name, value))
        if name in FRAMING_HEADERS:
            self.framing.append((name, value))

    def on_headers_complete(self) -> None:
        if self.deaf:
            raise Refused(400, "This connection has ended.")
        parser = self.parser
        headers, target = self.headers, self.url
        if self.head_bytes + self.head_slack + self.read_size > self.head_limit:
            self._check_head_size()
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(400, "This server speaks HTTP/1.1.")
        content_length, continue_wanted = read_framing(self.framing, version)
        if parser.should_upgrade() and content_length != 0:
            raise Refused(400, "An upgrade with a body is not offered.")
        method = parser.get_method().decode()
        raw_path, query = split_target(target, method)
        path = raw_path.decode()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": headers,
            "state": self.app_state.copy(),
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "extensions": self.extensions,
        }
        busy = not self.all_answered()
        if busy and len(self.waiting) >= PIPELINE_LIMIT:
            raise Refused(400, "Too many requests at once on one connection.")
        exchange = self.cycle = Exchange(
            self,
            scope,
            target,
            content_length,
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            continue_wanted=continue_wanted,
        )
        scope[ANSWER_AT_ONCE] = exchange.answer_at_once
        scope[ANSWER_LINES] = exchange.answer_lines
        if parser.should_upgrade():
            scope["extensions"] = {**self.extensions, UPGRADE: exchange.upgrade}
        if content_length is not None and content_length >= LEAST and self.scheme == "http":
            scope["extensions"] = {**self.extensions, DIRECT_BODY: exchange.take_body}
        self.reading_head = False
        self.drain_left = self.drain_limit
        if busy:
            self.deadline = inf
            self.flow.pause_reading()
            self.waiting.append(exchange)
        elif self.flow.write_paused:
            # The answer before was complete while its request's body still came.
            self.waiting.append(exchange)
            self._hold()
        else:
            self._start(exchange, parsing=True)

    def _check_head_size(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.head_limit:
            raise Refused(431, f"The headers are larger than {self.head_limit} bytes.")

    def on_body(self, body: bytes) -> None:
        self.idle_bytes = 0
        if self.deaf:
            return
        exchange = self.cycle
        if exchange.response_complete:
            self.drain(len(body))
            return
        exchange.received += len(body)
        exchange.parts.append(body)
        exchange.buffered += len(body) + PIECE_COST
        if exchange.buffered > self.window:
            self.flow.pause_reading()
            self.deadline = inf
        elif exchange is self.running:
            self.deadline = self.host.clock + self.stall
        exchange.wake()

    def on_message_complete(self) -> None:
        self.reading_head = True
        self.head_begun = False
        self.idle_bytes = self.head_bytes = 0
        self.mid_read = True
        exchange = self.cycle
        exchange.more_body = False
        if exchange.response_complete:
            self.deadline = self.host.clock + self.idle_timeout
        else:
            self.deadline = inf
            exchange.wake()

    def body_taken(self, exchange: Exchange) -> None:
        """The application took what was buffered: more may come."""
        if exchange is self.cycle and self.flow.read_paused:
            self.flow.resume_reading()
        if exchange.more_body and exchange is self.cycle:
            self.deadline = self.host.clock + self.stall

    def body_ended(self, exchange: Exchange) -> None:
        """The application took the body past the parser, whose place another one takes."""
        self.parser = httptools.HttpRequestParser(self)
        exchange.end_delivered = True
        if exchange is self.cycle and not self.deaf:
            self.on_message_complete()
            self.flow.resume_reading()

    # Answers

    def _start(self, exchange: Exchange, *, parsing: bool) -> None:
        self.running = exchange
        if exchange.more_body:
            # A client that waits for a 100 owes nothing before it got one.
            self.deadline = inf if exchange.continue_wanted else self.host.clock + self.stall
        if parsing and self.host.begins_at_once:
            self.begin = exchange
        else:
            self._keep(self.loop.create_task(exchange.run(self.app)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def response_complete(self, exchange: Exchange) -> None:
        """The answer is written: go on with the connection, or end it."""
        self.server_state.total_requests += 1
        if not self.waiting:
            self.early = None  # what came behind a request to upgrade that was answered otherwise
        if self.transport.is_closing():
            return
        if not exchange.keep_alive:
            self.end(unread=not self.reading_head)
        elif self.flow.write_paused and (self.reading_head or self.waiting):
            self._hold()
        else:
            self._go_on(exchange)

    def _hold(self) -> None:
        """The client asks for more than it takes: who only asks must not fill the memory."""
        self.held = True
        self.deadline = inf  # `check_write_stall` gives it up
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client has taken what it was sent (called by the transport)."""
        super().resume_writing()
        if self.held:
            self.held = False
            if self.running is not None and not self.transport.is_closing():
                self._go_on(self.running)

    def _go_on(self, exchange: Exchange) -> None:
        """Begin the next answer, or wait for a request."""
        if self.waiting:
            self._start(self.waiting.pop(0), parsing=False)
            if not self.waiting and self.cycle.buffered <= self.window:
                self.flow.resume_reading()
            return
        self.flow.resume_reading()
        if not self.reading_head:
            exchange.parts.clear()
            self.deadline = self.host.clock + self.host.options.drain_timeout
        elif self.head_begun:
            self.deadline = self.host.clock + self.header_timeout
        else:
            self.deadline = self.host.clock + self.idle_timeout

    def write_at_once(self, data: bytes) -> None:
        """Write, and have it on its way when this returns, where the client has room for it.

        The transport keeps what it is given until the loop's turn ends: a client would wait while
        what follows its answer is done here.
        """
        transport = self.transport
        if self.fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            sent = send_now(self.fd, data)
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def write_continue(self) -> None:
        """Tell the client to send its body."""
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.deadline = self.host.clock + self.stall
