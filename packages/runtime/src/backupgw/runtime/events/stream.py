"""Server-sent events: what happens, as it happens, for a browser or `curl -N`.

The format is that of the HTML standard, 9.2. A client that comes back with Last-Event-ID is told
what it missed, from a ring of the last events; where the ring no longer reaches back so far (or
the id is another process's), an event of the type `gap` says so first. A client that reads too
slowly is let go, and catches up from the ring when it reconnects.

A stream tells what its own worker process publishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from .records import Event, Message

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Wanted = Callable[[Event], bool]

REPLAY = 1000
CLIENTS = 100
BEHIND = 1000
"""Events that a client may be behind before it is let go."""
KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy ends the connection."""
RECONNECT = 3000
"""Milliseconds that a browser waits before it reconnects."""
GAP = b'event: gap\ndata: {"reason":"events are missing here"}\n\n'


class _Client:
    """What one connection is still to be told; filled by the dispatcher's thread."""

    def __init__(self, waiting: Sequence[Message], *, gap: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting = deque(waiting)
        self.gap = gap
        self.news = asyncio.Event()
        self.let_go = False
        self._signalled = False
        if waiting:
            self.news.set()

    def signal(self) -> None:
        """Wake the connection's task; with the stream's lock held, from any thread."""
        if self._signalled:
            return
        # A loop that was closed has no task to wake.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.news.set)
            self._signalled = True

    def taken(self) -> tuple[list[Message], bool]:
        """Return what waits, and whether the connection is to end; with the lock held."""
        waiting = list(self.waiting)
        self.waiting.clear()
        self._signalled = False
        self.news.clear()
        return waiting, self.let_go


class EventStream:
    """The sink behind a route, with the ring that late-comers are told from."""

    name = "stream"

    def __init__(
        self, *, replay: int = REPLAY, clients: int = CLIENTS, keep_alive: float = KEEP_ALIVE
    ) -> None:
        """Describe a stream.

        Args:
            replay: events kept for clients that reconnect.
            clients: connections at a time; more are answered 503.
            keep_alive: seconds.
        """
        from backupgw.runtime import metrics

        self._ring: deque[Message] = deque(maxlen=replay)
        self._limit = clients
        self._keep_alive = keep_alive
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._closed = False
        self._connected = metrics.gauge(
            "backupgw_event_stream_clients", "Open streams of server-sent events."
        )
        self._slow = metrics.counter(
            "backupgw_event_stream_slow_clients_total", "Clients let go because they lagged."
        )

    def take(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._ring.extend(messages)
            for client in self._clients:
                if client.let_go:
                    continue
                client.waiting.extend(messages)
                if len(client.waiting) > BEHIND + len(messages):
                    client.waiting.clear()
                    client.let_go = True
                    self._slow.add(1)
                client.signal()

    def close(self, timeout: float) -> None:  # noqa: ARG002 - the connections end by themselves
        """End all connections after what was handed over."""
        with self._lock:
            self._closed = True
            for client in self._clients:
                client.let_go = True
                client.signal()

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, wanted: Wanted = lambda _: True
    ) -> None:
        """Answer a GET by a stream; returns when the client leaves or the stream ends.

        Args:
            wanted: whether this client may and wants to see an event. Who may open a stream at
                all is for the caller to decide before.
        """
        client = self._join(last_event_id(scope))
        if client is None:
            await _refuse(send)
            return
        leaving = asyncio.ensure_future(_left(receive))
        try:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                # nginx gathers answers into buffers unless it is told not to.
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            start = b"retry: %d\n\n" % RECONNECT + (GAP if client.gap else b"")
            await send({"type": "http.response.body", "body": start, "more_body": True})
            await self._tell(client, leaving, send, wanted)
        finally:
            leaving.cancel()
            with self._lock:
                self._clients.discard(client)
                self._connected.set(len(self._clients))

    async def _tell(
        self, client: _Client, leaving: asyncio.Future[None], send: Send, wanted: Wanted
    ) -> None:
        ending = False
        while not ending:
            news = asyncio.ensure_future(client.news.wait())
            try:
                await asyncio.wait(
                    (news, leaving),
                    timeout=self._keep_alive,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                news.cancel()
            if leaving.done():
                return
            with self._lock:
                waiting, ending = client.taken()
            body = b"".join(framed(message) for message in waiting if wanted(message.event))
            if not waiting and not ending:
                body = b": \n\n"
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _join(self, last: str | None) -> _Client | None:
        with self._lock:
            if self._closed or len(self._clients) >= self._limit:
                return None
            missed: list[Message] = []
            gap = False
            if last is not None:
                ring = list(self._ring)
                places = [place for place, message in enumerate(ring) if message.id == last]
                gap = not places
                # Ids sort by time, so an id that is not here still says what came after it.
                missed = ring[places[0] + 1 :] if places else [m for m in ring if m.id > last]
            client = _Client(missed, gap=gap)
            self._clients.add(client)
            self._connected.set(len(self._clients))
            return client


def framed(message: Message) -> bytes:
    """Return an event as the stream carries it. JSON on one line has no line end of its own."""
    return f"id: {message.id}\nevent: {message.event.type}\ndata: {message.text}\n\n".encode()


def last_event_id(scope: Scope) -> str | None:
    """Return what the client saw last, by its own account."""
    for name, value in scope["headers"]:
        if name == b"last-event-id" and value:
            return bytes(value).decode("latin-1")
    return None


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send) -> None:
    body = b"Too many streams are open, or the gateway is stopping.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"10"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
