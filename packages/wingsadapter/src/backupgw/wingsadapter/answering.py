"""Answers in Wings' manner: its error body, and the headers that its clients look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Message, Send

VERSION = "1.0.0"
"""The Wings API that is spoken."""

Headers = list[tuple[bytes, bytes]]

_ALLOWED = (
    b"Accept, Accept-Encoding, Authorization, Cache-Control, Content-Type, Content-Length, Origin, "
    b"X-Real-IP, X-CSRF-Token"
)


class Manner:
    """The headers of every answer of ours.

    Args:
        token_id: the Panel checks `User-Agent` on answers that are no success, and believes it
            cannot reach the node without it (Pelican's DaemonConnectionException).
        panel: whose pages may read answers; None: any.
        origins: others' that may.
    """

    def __init__(self, token_id: str, panel: str | None, origins: Sequence[str] = ()) -> None:
        self._agent = f"Pelican Wings/v{VERSION} (id:{token_id})".encode("latin-1", "replace")
        self._panel = (panel or "*").encode()
        self._origins = {origin.encode() for origin in origins}

    def headers(self, request_id: str, origin: bytes | None) -> Headers:
        """Return them, for a request with an id and an Origin."""
        allowed = self._panel
        if origin is not None and (origin in self._origins or b"*" in self._origins):
            allowed = origin
        return [
            (b"user-agent", self._agent),
            (b"x-request-id", request_id.encode()),
            (b"access-control-allow-origin", allowed),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-methods", b"GET, POST, PATCH, PUT, DELETE, OPTIONS"),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", b"7200"),
            (b"vary", b"Origin"),
        ]


class Answering:
    """Sends the answer of one request, with our headers in front of its own."""

    def __init__(self, send: Send, headers: Headers, request_id: str) -> None:
        self._send = send
        self._headers = headers
        self.request_id = request_id
        self.started = False

    async def send(self, message: Message) -> None:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*self._headers, *message.get("headers", ())]}
        await self._send(message)

    async def json(self, status: int, document: Any) -> None:
        """Answer by a document."""
        body = json.dumps(document, separators=(",", ":")).encode()
        await self._whole(status, body, [(b"content-type", b"application/json; charset=utf-8")])

    async def empty(self, status: int) -> None:
        """Answer without a body."""
        await self._whole(status, b"", [])

    async def refuse(
        self, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer by an error."""
        body = json.dumps({"error": text, "request_id": self.request_id}).encode()
        more = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        await self._whole(
            status, body, [(b"content-type", b"application/json; charset=utf-8"), *more]
        )

    async def _whole(self, status: int, body: bytes, headers: Headers) -> None:
        if status != 204:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
