"""A double of Wings: the routes that a gateway in front of it passes on, as Wings answers them.

Written from Wings' router (router.go, router_server_ws.go): a bearer token on what is below /api, a
websocket for the console with the subprotocol and closing code of the client's choice, uploads and
downloads of any size, and, where `events` is set, the event stream of the fork that has one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import Any
from urllib.parse import parse_qs

from .double import Double, Receive, Scope, Send
from .panel import TOKEN
from .tls import Certificate

PIECE = bytes(range(256)) * 256


class WingsDouble(Double):
    """A Wings. A context manager.

    Attributes:
        events: whether there is a route for them.
        answers: to GET /api/servers/UUID, by uuid: a status and a body.
        left: set when a client of /api/endless has gone.
        sockets: how websockets ended: (code, reason).
    """

    def __init__(self, *, events: bool = False, certificate: Certificate | None = None) -> None:
        super().__init__(self._pass, certificate=certificate)
        self.events = events
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.left = threading.Event()
        self.sockets: list[tuple[int, str]] = []
        self._listeners: list[tuple[str, asyncio.Queue[bytes]]] = []
        self._listening = threading.Condition()

    def tell(self, name: str, document: dict[str, Any]) -> None:
        """Tell everybody on the event stream."""
        data = json.dumps(document)
        with self._listening:
            assert self._loop is not None
            for _, queue in self._listeners:
                frame = f"event: {name}\ndata: {data}\n\n".encode()
                self._loop.call_soon_threadsafe(queue.put_nowait, frame)

    def wait_for_listener(self, server: str, timeout: float = 60) -> None:
        """Wait until an event stream for a server is open."""

        def open_for_it() -> bool:
            return any(server in asked for asked, _ in self._listeners)

        with self._listening:
            assert self._listening.wait_for(open_for_it, timeout)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        name = scope["path"].rpartition("/")[2]
        if name in self.answers and scope["path"] == f"/api/servers/{name}":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            known = shown == f"Bearer {TOKEN}".encode()
            await _answer(send, *(self.answers[name] if known else (403, b"{}")))
            return
        handler = getattr(self, f"_on_{name}", self._on_echo)
        if name == "events" and not self.events:
            handler = self._on_nothing
        await handler(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An echo; "close CODE REASON" closes."""
        await receive()
        if scope["path"].endswith("/refused"):
            await send({"type": "websocket.close", "code": 1008})
            return
        offered = scope["subprotocols"]
        chosen = offered[-1] if offered else None
        headers = [(b"x-wings", b"yes"), (b"x-token", dict(scope["headers"]).get(b"origin", b""))]
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.sockets.append((message["code"], message.get("reason") or ""))
                return
            text = message.get("text")
            if text and text.startswith("close "):
                _, code, reason = text.split(" ", 2)
                await send({"type": "websocket.close", "code": int(code), "reason": reason})
                return
            await send({**message, "type": "websocket.send"})

    async def _on_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what came."""
        digest, size = hashlib.sha256(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            digest.update(message.get("body", b""))
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        found = {
            "method": scope["method"],
            "target": scope["raw_path"].decode("latin-1"),
            "query": scope["query_string"].decode("latin-1"),
            "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
            "size": size,
            "sha256": digest.hexdigest(),
        }
        await _answer(send, 200, json.dumps(found).encode())

    async def _on_cookies(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer with a header twice."""
        await _answer(send, 200, b"", ("set-cookie", "a=1"), ("set-cookie", "b=2"))

    async def _on_big(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A download of as many MiB as the query says."""
        count = int(parse_qs(scope["query_string"].decode())["mib"][0]) * 16
        headers = [(b"content-length", b"%d" % (count * len(PIECE))), (b"etag", b'"x"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(count):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _on_endless(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer that goes on until the client has gone."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(_left(receive))
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await asyncio.wait([leaving], timeout=0.1)
        self.left.set()

    async def _on_short(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Half an answer."""
        headers = [(b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
        raise RuntimeError("half an answer")

    async def _on_hop(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer with headers of one connection alone."""
        await _answer(
            send,
            200,
            b"x",
            ("connection", "x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("x-public", "1"),
        )

    async def _on_elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 307, b"", ("location", "http://example.com/"))

    async def _on_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"authorization") != f"Bearer {TOKEN}".encode():
            await _answer(send, 403, b"{}")
            return
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        with self._listening:
            listener = (scope["query_string"].decode(), queue)
            self._listeners.append(listener)
            self._listening.notify_all()
        try:
            while True:
                frame = await queue.get()
                for byte in (frame[:7], frame[7:]):  # an event may come in pieces
                    await send({"type": "http.response.body", "body": byte, "more_body": True})
        finally:
            with self._listening:
                self._listeners.remove(listener)

    async def _on_nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 404, b'{"error":"not found"}')


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    all_headers = [(b"content-length", b"%d" % len(body))]
    all_headers += [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})
