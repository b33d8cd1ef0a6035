"""A reverse proxy before a real HTTP server, so that it fails on demand (see `double`).

    with faulty(server.url) as proxy:
        proxy.faults = Faults(rate=0.2)

Everything passes unchanged, the Host header too: S3 signs it, so the client must be told the
proxy's address and the server must take any. Bodies stream both ways.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator

import httpx

from .double import Application, Double, Message, Receive, Scope, Send

_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"expect"})
"""Headers of one connection (RFC 9110, 7.6.1), and what uvicorn has answered itself."""


@contextlib.contextmanager
def faulty(target: str) -> Iterator[Double]:
    """Run a proxy to `target`, a URL such as http://127.0.0.1:9000 without a path."""
    with Double(forwarding(target)) as double:
        yield double


def forwarding(target: str) -> Application:
    """Return an application that hands every request on. Answers 502 where nobody listens."""
    trusted = ssl.create_default_context()  # or each client would read all authorities

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        url = target + scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            url += "?" + scope["query_string"].decode("latin-1")
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]
        sized = any(
            name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
        )
        # A client of its own: pooled connections would outlive the server behind them.
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=trusted) as client:
            request = httpx.Request(
                scope["method"], url, headers=headers, content=_body(receive) if sized else None
            )
            if not sized:
                request.headers.pop("content-length", None)
            try:
                response = await client.send(request, stream=True)
            except httpx.TransportError as error:
                await _start(send, 502, [(b"content-type", b"text/plain")])
                await send({"type": "http.response.body", "body": str(error).encode()})
                return
            try:
                answer = [(n.lower(), v) for n, v in response.headers.raw if n.lower() not in _HOP]
                await _start(send, response.status_code, answer)
                async for piece in response.aiter_raw():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()

    return application


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.WriteError("the client left")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
