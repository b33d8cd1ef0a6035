"""A request as it comes in: its headers and its body, as a service's exchanges read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client closed the connection before its body was whole; there is nobody to answer."""


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of that name, in lower case; None where there is none."""
    value: bytes
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None


class Incoming(ABC):
    """What a client asks. A service's exchange is one, and adds how it answers.

    Attributes:
        scope: the request's ASGI scope.
        receive: gives the messages of its body.

    Both are set by the exchange: one constructor more is felt in each request.
    """

    __slots__ = ("receive", "scope")
    scope: Scope
    receive: Receive

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of that name, in lower case; None where there is none."""
        return header_of(self.scope, name)

    def content_length(self) -> int | None:
        """The declared length of the body; the HTTP parser has vouched for its form."""
        value = header_of(self.scope, b"content-length")
        return None if value is None else int(value)

    async def receive_body(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether more will come.

        Raises:
            ClientGone: none will.
        """
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def whole_body(self, most: int) -> bytes:
        """Return the whole body.

        Args:
            most: bytes that it may have.

        Raises:
            ClientGone: it does not come whole.
            Exception: what `too_large` returns, where it is larger.
        """
        pieces: list[bytes] = []
        held = 0
        more = True
        while more:
            piece, more = await self.receive_body()
            pieces.append(piece)
            held += len(piece)
            if held > most:
                raise self.too_large(f"the body may have {most} bytes")
        return b"".join(pieces)

    @abstractmethod
    def too_large(self, text: str) -> Exception:
        """Return the service's refusal (413) of a body that is too large."""
