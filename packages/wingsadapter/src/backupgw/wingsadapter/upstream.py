"""The Wings behind us: what is not about backups is its, and goes through unchanged.

A Panel knows one address for a node. So every request that is not ours is passed on as it came, its
target byte for byte, and answered as Wings answers; bodies go through both ways as they come. A
connection that changes its protocol (the console's websocket) becomes a tunnel of bytes: what is
spoken in it, subprotocols, extensions and closing codes, is between the browser and Wings.

What belongs to one connection alone is not passed on (RFC 9110, 7.6.1), and X-Forwarded-For,
X-Forwarded-Proto and X-Forwarded-Host say who asked: with our address in Wings' own
`api.trusted_proxies`, its log has the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.types import Receive, Scope, Send

from backupgw.runtime.http.upgrade import UPGRADE, Gone, Tunnel, Upgrade

from .incoming import Refusal

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
CONNECT_TIMEOUT = 10.0
"""Seconds until Wings must have taken a connection. Nothing else is limited: a console may be
silent, an archive slow."""
KEPT = 32
"""Idle connections kept to Wings."""
PIECE = 64 << 10


def check_address(url: str) -> str:
    """Return the address of a Wings without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.username is not None
    ):
        raise ValueError(f"{url!r} is no address of Wings, such as http://127.0.0.1:8081")
    return f"{parts.scheme}://{parts.netloc}"


class Upstream:
    """An ASGI application that passes on. Its connections belong to one event loop.

    Args:
        url: of Wings, "http://127.0.0.1:8081" or "https://…".
        verify: whether Wings' certificate is looked at.

    Raises:
        ValueError: the address is none.
    """

    def __init__(self, url: str, *, verify: bool = True) -> None:
        self._url = httpx.URL(check_address(url))
        self._verify = verify
        self._transport: httpx.AsyncHTTPTransport | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return str(self._url).rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and its answer.

        Raises:
            Refusal: Wings is away, or does not answer.
        """
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not passed on")
        upgrade = scope.get("extensions", {}).get(UPGRADE)
        wanted = (_first(scope, b"upgrade") or b"").lower()
        # Nothing else: Wings speaks nothing else, and h2c would walk around every rule of ours.
        if upgrade is not None and wanted == b"websocket":
            await self._pass_upgrade(scope, send, upgrade)
        else:
            await self._pass(scope, receive, send)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.aclose()

    def request(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | None = None,
    ) -> httpx.Request:
        """Return a request to Wings, with just these headers and this target."""
        if body is not None and not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        # `target` is what is sent, however httpx would have written the address.
        return httpx.Request(
            method,
            self._url,
            headers=headers,
            content=body,
            extensions={"target": target, "timeout": {"connect": CONNECT_TIMEOUT}},
        )

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the answer's body is still to come, and is to be closed.

        Raises:
            httpx.HTTPError: Wings is away, or talks nonsense.
        """
        if self._transport is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=KEPT)
            self._transport = httpx.AsyncHTTPTransport(
                verify=self._verify, limits=limits, trust_env=False
            )
        return await self._transport.handle_async_request(request)

    # -- requests

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive)
        request = self.request(
            scope["method"],
            _target(scope),
            _to_wings(scope),
            body.pieces() if _has_body(scope) else None,
        )
        leaving = asyncio.ensure_future(body.left.wait())
        watching = None if _has_body(scope) else asyncio.ensure_future(body.watch())
        try:
            try:
                answer = await _unless(leaving, self.ask(request))
            except httpx.HTTPError as error:
                if body.left.is_set():
                    return
                raise _refusal(error) from error
            if answer is None:
                return
            if watching is None:
                watching = asyncio.ensure_future(body.watch())
            try:
                # Where this fails in the middle, the host breaks the connection off: that is how
                # the client knows.
                await self._answer(answer, leaving, send)
            finally:
                await answer.aclose()
        finally:
            for task in (leaving, watching):
                if task is not None:
                    task.cancel()

    async def _answer(
        self, answer: httpx.Response, leaving: asyncio.Future[Any], send: Send
    ) -> None:
        headers = _end_to_end(answer.headers.raw)
        await send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )
        pieces = aiter(answer.stream)  # type: ignore[arg-type]  # an asynchronous one
        while True:
            piece = await _unless(leaving, _next(pieces))
            if piece is None:
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not leaving.done():
            await send({"type": "http.response.body", "body": b""})

    # -- other protocols

    async def _pass_upgrade(self, scope: Scope, send: Send, upgrade: Upgrade) -> None:
        headers = [*_to_wings(scope), (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        try:
            answer = await self.ask(self.request(scope["method"], _target(scope), headers))
        except httpx.HTTPError as error:
            raise _refusal(error) from error
        try:
            if answer.status_code != 101:
                never = asyncio.get_running_loop().create_future()
                await self._answer(answer, never, send)
                return
            stream = answer.extensions["network_stream"]
            agreed = [
                (name.lower(), value)
                for name, value in answer.headers.raw
                if name.lower() not in (b"content-length", b"transfer-encoding")
            ]
            tunnel = await upgrade(agreed)
            await _join(tunnel, stream)
        finally:
            await answer.aclose()


async def _join(tunnel: Tunnel, stream: Any) -> None:
    """Carry bytes both ways until one side has ended."""

    async def up() -> None:
        while data := await tunnel.read():
            await stream.write(data)

    async def down() -> None:
        while data := await stream.read(PIECE):
            await tunnel.write(data)

    tasks = {asyncio.ensure_future(up()), asyncio.ensure_future(down())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, Gone):
                log.debug("a connection to Wings ended: %r", error)
        tunnel.close()
        with contextlib.suppress(Exception):  # it is on its way out, whatever it says
            await stream.aclose()


class _Body:
    """A request's body, and whether whoever sent it is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                raise _ClientLeft("the client left")
            if piece := message.get("body", b""):
                yield piece
            if not message.get("more_body", False):
                return

    async def watch(self) -> None:
        """Wait until the client leaves; only where the body is not wanted any more."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left.set()


class _ClientLeft(httpx.HTTPError):
    pass


async def _unless(leaving: asyncio.Future[Any], work: Awaitable[Any]) -> Any:
    """Return what `work` comes to; None, and no more of it, once `leaving` is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await task


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None


def _target(scope: Scope) -> bytes:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def _has_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def _first(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _end_to_end(headers: Any) -> Headers:
    """Return the headers that are not about one connection alone, names in lower case."""
    listed = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for word in value.split(b",")
    }
    return [
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in HOP_BY_HOP and name.lower() not in listed
    ]


def _to_wings(scope: Scope) -> Headers:
    headers = [
        (name, value)
        for name, value in _end_to_end(scope["headers"])
        if name not in (b"expect", b"x-forwarded-for")
    ]
    came = b", ".join(v for n, v in scope["headers"] if n == b"x-forwarded-for")
    client = scope.get("client")
    chain = [part for part in (came, client[0].encode() if client else b"") if part]
    if chain:
        headers.append((b"x-forwarded-for", b", ".join(chain)))
    names = {name for name, _ in headers}
    if b"x-forwarded-proto" not in names:
        headers.append((b"x-forwarded-proto", scope["scheme"].encode()))
    host = _first(scope, b"host")
    if host is not None and b"x-forwarded-host" not in names:
        headers.append((b"x-forwarded-host", host))
    return headers


def _refusal(error: httpx.HTTPError) -> Refusal:
    """Return what the client is told where Wings cannot be had."""
    log.warning("Wings does not answer: %s", str(error) or type(error).__name__)
    if isinstance(error, httpx.TimeoutException):
        return Refusal(504, "Wings did not answer in time")
    return Refusal(502, "Wings cannot be reached behind this gateway")
