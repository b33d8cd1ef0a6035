"""The routes: who may ask, what is asked for, and what is answered at once.

No route waits for a backup, a restore or a restic: what takes time is put into a queue, and what
is known of snapshots is kept (`snapshots.py`). What is not about backups goes to the Wings behind
us where there is one.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from backupgw.runtime.log import new_request_id, request_context
from backupgw.runtime.threads import Threads

from .answering import Answering, Manner
from .event_hub import EventHub, Listening, OtherEvents
from .incoming import LARGEST_BODY, Fields, Refusal, canonical

log = logging.getLogger(__name__)

_SERVER = re.compile(
    r"/api/servers/(?P<server>[^/]+)/"
    r"(?:backup(?:/(?P<backup>[^/]+)(?:/(?P<verb>restore|status))?)?|(?P<all>deleteAllBackups))\Z"
)


@dataclass(frozen=True)
class Asked:
    """A request that may proceed."""

    scope: Scope
    receive: Receive
    answer: Answering
    server: str = ""
    backup: str = ""


class Operations(Protocol):
    """What the routes are about; all of it blocks for a moment at most.

    They raise Refusal where the answer is no success.
    """

    def knows(self, server: str) -> bool:
        """Whether a server is this node's."""

    def create(self, server: str, backup: str, adapter: str, ignore: str) -> None:
        """Put a backup into the queue."""

    def restore(
        self,
        server: str,
        backup: str,
        adapter: str,
        *,
        truncate: bool,
        download_url: str,
        paths: tuple[str, ...],
    ) -> None:
        """Put a restore into the queue."""

    def delete(self, server: str, backup: str, adapter: str) -> None:
        """Remove a backup, or see to it that it is removed."""

    def delete_all(self, server: str) -> None:
        """Remove all backups of a server."""

    def snapshots(self, server: str, *, with_stats: bool) -> list[dict[str, Any]]:
        """Return a server's snapshots as documents, oldest first."""

    def status(self, server: str, backup: str) -> dict[str, Any] | None:
        """Return the snapshot of a backup as a document; None: there is none."""


class WingsApp:
    """The ASGI application.

    Args:
        operations: what is behind the routes.
        token: what clients have to show.
        manner: the headers of answers.
        hub: of events.
        threads: where blocking calls run.
        keep_alive: seconds of silence on an event stream until a comment.
        download: answers `GET /download/backup`; None: not offered here.
        upstream: answers what is not ours, websockets too; None: 404.
        other_events: further events for streams.
    """

    def __init__(
        self,
        operations: Operations,
        token: str,
        manner: Manner,
        hub: EventHub,
        threads: Threads,
        *,
        keep_alive: float = 15.0,
        download: ASGIApp | None = None,
        upstream: ASGIApp | None = None,
        other_events: OtherEvents | None = None,
    ) -> None:
        self._operations = operations
        self._token = token.encode()
        self._manner = manner
        self._hub = hub
        self._threads = threads
        self._keep_alive = keep_alive
        self._download = download
        self._upstream = upstream
        self._other_events = other_events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._pass_on(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = new_request_id()
        answer = Answering(
            send, self._manner.headers(request_id, headers.get(b"origin")), request_id
        )
        with request_context(request_id=request_id):
            try:
                await self._route(scope, receive, send, answer)
            except Refusal as refusal:
                await answer.refuse(refusal.status, refusal.text, refusal.headers)
            except Exception:  # whatever it is, the client is told in Wings' words
                log.exception("%s %s failed", scope["method"], scope["path"])
                if answer.started:
                    raise
                await answer.refuse(500, "an unexpected error was encountered; see the node's log")

    async def _route(self, scope: Scope, receive: Receive, send: Send, answer: Answering) -> None:
        path, method = scope["path"], scope["method"]
        handler, server, backup = self._find(path, method)
        if handler is None and self._upstream is not None:
            await self._upstream(scope, receive, send)
            return
        if method == "OPTIONS":
            await answer.empty(204)
            return
        if path == "/download/backup" and method in ("GET", "HEAD") and self._download is not None:
            await self._download(scope, receive, answer.send)
            return
        self._identify(scope)
        if handler is None:
            raise Refusal(404, "the requested resource was not found on this node")
        asked = Asked(scope, receive, answer, server, backup)
        if server and not (
            canonical(server) and await self._threads.run(self._operations.knows, server)
        ):
            raise Refusal(404, "the requested server does not exist on this node")
        if backup and not canonical(backup):
            raise Refusal(400, "the backup's name is not a UUID")
        await handler(asked)

    def _find(self, path: str, method: str) -> tuple[_Handler | None, str, str]:
        """Return what answers a path, and the server and backup in it."""
        if path == "/api/events" and method == "GET":
            return self._events, "", ""
        if path == "/download/backup" and self._download is not None:
            return self._nothing, "", ""
        found = _SERVER.match(path)
        if found is None:
            return None, "", ""
        server, backup, verb = found["server"], found["backup"] or "", found["verb"]
        handlers: dict[str, _Handler]
        if found["all"]:
            handlers = {"DELETE": self._delete_all}
        elif not backup:
            handlers = {"POST": self._create}
        elif verb == "restore":
            handlers = {"POST": self._restore}
        elif verb == "status":
            handlers = {"GET": self._status}
        elif backup == "snapshots" and method != "DELETE":
            handlers, backup = {"GET": self._snapshots}, ""
        else:
            handlers = {"DELETE": self._delete}
        if method == "OPTIONS":
            return self._nothing, server, backup
        return handlers.get(method), server, backup

    def _identify(self, scope: Scope) -> None:
        """Refuse whoever does not show the node's token."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, space, shown = (values[0] if len(values) == 1 else b"").partition(b" ")
        if scheme != b"Bearer" or not space or not shown:
            raise Refusal(
                401,
                "the required authorization header was not present in the request",
                {"WWW-Authenticate": "Bearer"},
            )
        if not hmac.compare_digest(shown, self._token):
            raise Refusal(403, "you are not authorized to access this endpoint")

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._upstream is not None:
            await self._upstream(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    async def _nothing(self, asked: Asked) -> None:
        await asked.answer.empty(204)

    # -- backups

    async def _create(self, asked: Asked) -> None:
        fields = Fields(await _body(asked))
        await self._threads.run(
            self._operations.create,
            asked.server,
            fields.uuid("uuid"),
            fields.text("adapter"),
            fields.text("ignore"),
        )
        await asked.answer.empty(202)

    async def _restore(self, asked: Asked) -> None:
        fields = Fields(await _body(asked))
        adapter = fields.text("adapter")
        if not adapter:
            raise Refusal(400, "adapter is missing")
        await self._threads.run(
            self._operations.restore,
            asked.server,
            asked.backup,
            adapter,
            truncate=fields.switch("truncate_directory"),
            download_url=fields.text("download_url"),
            paths=fields.paths("paths"),
        )
        await asked.answer.empty(202)

    async def _delete(self, asked: Asked) -> None:
        fields = Fields(await _body(asked), optional=True)
        await self._threads.run(
            self._operations.delete, asked.server, asked.backup, fields.text("adapter")
        )
        await asked.answer.empty(204)

    async def _delete_all(self, asked: Asked) -> None:
        await self._threads.run(self._operations.delete_all, asked.server)
        await asked.answer.empty(204)

    async def _snapshots(self, asked: Asked) -> None:
        given = _query(asked.scope).get("include_stats", [""])[-1].lower()
        found = await self._threads.run(
            self._operations.snapshots, asked.server, with_stats=given in ("1", "t", "true")
        )
        await asked.answer.json(200, {"snapshots": found})

    async def _status(self, asked: Asked) -> None:
        found = await self._threads.run(self._operations.status, asked.server, asked.backup)
        await asked.answer.json(200, {"exists": found is not None, "snapshot": found})

    # -- events

    async def _events(self, asked: Asked) -> None:
        given = ",".join(_query(asked.scope).get("servers", []))
        servers = [each.strip() for each in given.split(",") if each.strip()]
        if not servers:
            raise Refusal(400, "servers is missing: name one or more, separated by commas")
        for server in servers:
            if not canonical(server) or not await self._threads.run(self._operations.knows, server):
                raise Refusal(404, "a requested server does not exist on this node")
        last = next((v for n, v in asked.scope["headers"] if n == b"last-event-id"), None)
        client = self._hub.join(
            frozenset(servers), None if last is None else last.decode("latin-1")
        )
        if client is None:
            raise Refusal(503, "too many event streams are open", {"Retry-After": "10"})
        tasks = [asyncio.ensure_future(_left(asked.receive))]
        if self._other_events is not None:
            tasks.append(asyncio.ensure_future(self._other_events.follow(servers, client)))
        try:
            await self._stream(asked, client, tasks[0])
        finally:
            self._hub.leave(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, asked: Asked, client: Listening, leaving: asyncio.Future[None]) -> None:
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        send = asked.answer.send
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # The head goes with the first piece of the body: a client wants to know that it is heard.
        await send({"type": "http.response.body", "body": b": connected\n\n", "more_body": True})
        while not leaving.done():
            news = asyncio.ensure_future(client.next(self._keep_alive))
            await asyncio.wait((news, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                return
            body = news.result()
            ending = client.gone and not body
            if not ending:
                await send(
                    {
                        "type": "http.response.body",
                        "body": body or b": keepalive\n\n",
                        "more_body": True,
                    }
                )
            if client.gone:
                break
        await send({"type": "http.response.body", "body": b""})


_Handler = Callable[[Asked], Awaitable[None]]


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(asked: Asked) -> bytes:
    """Return a request's body.

    Raises:
        Refusal: it is too large.
    """
    headers = dict(asked.scope["headers"])
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > LARGEST_BODY:
        raise Refusal(413, f"the body of the request has more than {LARGEST_BODY} bytes")
    body = bytearray()
    while True:
        message = await asked.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the request ended early")
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise Refusal(413, f"the body of the request has more than {LARGEST_BODY} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
