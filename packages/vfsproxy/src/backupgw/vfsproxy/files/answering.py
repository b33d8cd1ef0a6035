"""What sends answers with bodies: the request and answer of the edge, as far as files need it."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

Head = list[tuple[bytes, bytes]]


class Answering(Protocol):
    """One request and its answer."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def method(self) -> str:
        """Of the request."""

    async def start(self, status: int, headers: Head) -> None:
        """Send the head of the answer."""

    async def send_body(self, body: bytes | bytearray | memoryview, *, more: bool) -> Any:
        """Send a piece of its body."""


def wire(headers: dict[str, str]) -> Head:
    """Return headers as ASGI has them."""
    return [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]
