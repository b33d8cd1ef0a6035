"""How a connection ends: such that the client can read its last answer, and in bounded time.

The other half of `protocol.GatewayProtocol`: refusals, requests that end early, bytes that are
thrown away, deadlines that have passed, clients that take nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sys
import termios
from math import inf

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backupgw.runtime.http.answer_lines import STATUS_LINES
from backupgw.runtime.http.exchange import Exchange
from backupgw.runtime.http.state import HostState
from backupgw.runtime.http.upgrade import Tunnel

logger = logging.getLogger(__name__)


class Unparsed:
    """A request that was refused before it could be understood, for the access log."""

    user: str | None = None
    http_version = ""
    seconds = 0.0

    def __init__(self, client: str, status: int, sent: int) -> None:
        self.client = client
        self.status = status
        self.sent = sent
        self.received = 0
        self.method = "-"
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []


class EndingProtocol(HttpToolsProtocol):
    """What of a connection its end has to do with.

    Attributes:
        cycle: the newest request.
        running: the request being answered; `waiting` are those behind it.
        reading_head: between messages, or in a head (`head_begun`); else in a body.
        deaf: what comes is thrown away until the client hangs up or the drain limits end it.
        deadline: on the host's clock; when it has passed, the server calls `expire`.
    """

    cycle: Exchange  # type: ignore[assignment]  # of our own kind
    host: HostState
    running: Exchange | None
    waiting: list[Exchange]
    reading_head: bool
    head_begun: bool
    deaf: bool
    deadline: float
    drain_left: int
    stall: float
    header_timeout: float
    address: str | None
    write_mark: tuple[float, int]
    tunnel: Tunnel | None

    def newest(self) -> Exchange:
        """Return the request that came last of those that are not answered."""
        if self.waiting:
            return self.waiting[-1]
        assert self.running is not None
        return self.running

    def all_answered(self) -> bool:
        """Whether nothing waits for an answer, or for the rest of one."""
        running = self.running
        return not self.waiting and (running is None or running.response_complete)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that sent its requests and shut its side still gets the answers."""
        if self.tunnel is not None:
            return None
        running = self.running
        whole = self.reading_head and not self.head_begun
        if running is not None and running is self.cycle and not self.reading_head:
            self.refuse(400, "The body of the request ended early.")
            return None
        if self.all_answered() or not whole or self.scheme == "https":
            return None
        self.deaf = True
        self.deadline = inf
        self.newest().keep_alive = False
        return True

    def shutdown(self) -> None:
        """The server stops: an idle connection ends now, a busy one after its answers."""
        running = self.running
        if self.tunnel is not None:
            self.tunnel.end()  # it may last for days
        elif running is None or self.all_answered() or running.disconnected:
            self.transport.close()
        else:
            self.newest().keep_alive = False

    def write_error(self, status: int, text: str) -> int:
        """Write a whole answer of one line; return the size of its body in bytes."""
        body = f"{text}\n".encode()
        self.transport.write(
            STATUS_LINES[status]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n" % len(body)
            + self.host.end_of_head
            + body
        )
        return len(body)

    def answer_unparsed(self, status: int, text: str) -> None:
        sent = self.write_error(status, text)
        self.host.finished(Unparsed(self.address or "", status, sent))

    def refuse(self, status: int, text: str) -> None:
        """Answer what cannot be served, and read nothing more from this connection.

        Requests that came before on the same connection are answered first: an error out of
        turn would be taken for the answer to one of them.
        """
        running = self.running
        if self.deaf or self.transport.is_closing():
            return
        answered = self.all_answered()
        if running is None or (answered and self.reading_head):
            self.answer_unparsed(status, text)
            self.end(unread=True)
        elif answered:  # in a body that is thrown away: it has had its answer
            self.deaf = True
            self.transport.close()
        elif running is self.cycle and not self.reading_head:
            self.deaf = True
            if running.response_started and running.head is None:
                running.disconnect()
                self.transport.abort()
                return
            running.response_started = True
            running.status = status
            running.sent = self.write_error(status, text)
            running.disconnect()
            self.end(unread=True)
        else:
            if not self.reading_head:
                self.waiting.pop()
            self.finish_after_newest()

    def finish_after_newest(self) -> None:
        self.deaf = True
        self.deadline = inf
        newest = self.newest()
        newest.keep_alive = False
        if newest.response_complete:
            self.end(unread=False)

    def end(self, unread: bool) -> None:
        """End the connection such that the client can read its answer.

        Closing a socket that still has unread bytes resets it, and the reset can overtake the
        answer; so what the client is still sending is thrown away, within the drain limits.
        """
        self.deaf = True
        if not unread:
            self.transport.close()
            return
        self.deadline = self.host.clock + self.host.options.drain_timeout
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client was quicker
                self.transport.write_eof()

    def drain(self, size: int) -> None:
        self.drain_left -= size
        if self.drain_left < 0:
            self.deaf = True
            self.transport.close()

    def expire(self) -> None:
        """The deadline has passed (called by the server)."""
        self.deadline = inf
        running = self.running
        if self.deaf:
            self.transport.abort()
        elif not self.reading_head:
            if running is not None and running.response_complete:
                self.transport.close()
            else:
                self.refuse(408, f"No byte of the body came for {self.stall:g} seconds.")
        elif self.head_begun:
            limit = self.header_timeout
            self.refuse(408, f"The headers did not come within {limit:g} seconds.")
        else:
            self.transport.close()

    def check_write_stall(self) -> None:
        """Give up a client that took nothing of its answer since the last call (by the server)."""
        unsent = self._unsent()
        mark = (0.0 if self.running is None else self.running.started, unsent)
        if unsent and mark == self.write_mark:
            logger.info("%s takes nothing of its answer: given up", self.address or "client")
            self.transport.abort()
        self.write_mark = mark

    def _unsent(self) -> int:
        """Bytes of answers that wait for the client; 0 where none do.

        What the system holds counts as well: it hands over to a slow client for minutes before it
        takes more from us.
        """
        size = self.transport.get_write_buffer_size()
        running = self.running
        body = None if running is None else running.thread_body
        if body is not None and body.waiting:
            size += body.left
        if size and self.scheme == "http":
            held = bytearray(4)
            with contextlib.suppress(OSError):  # it is about to be closed
                fcntl.ioctl(
                    self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held
                )
            size += int.from_bytes(held, sys.byteorder)
        return size
