"""One hostile request: what is sent, and what the answer may be."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Ending(enum.Enum):
    """What the attacker does when everything is sent."""

    STAY = enum.auto()
    """Wait for the answer, then use the connection for a valid request."""

    HALF_CLOSE = enum.auto()
    """Close the sending half: for requests that are not whole, which nobody will complete."""

    RESET = enum.auto()
    """Reset the connection without reading an answer."""


@dataclass(frozen=True)
class Attack:
    """A request as it goes over the wire.

    `allowed` are the statuses that the answer may have. `may_be_cut`: the server may close while
    it is still being written to, which loses the answer on its way (a reset).
    """

    name: str
    payload: bytes
    allowed: frozenset[int]
    ending: Ending = Ending.STAY
    may_be_cut: bool = False

    @property
    def to_head(self) -> bool:
        """Whether the answer has no body."""
        return self.payload.startswith(b"HEAD ")

    @property
    def stores_nothing(self) -> bool:
        """Whether no answer that it may get says that something was stored."""
        return 200 not in self.allowed


def request(
    method: bytes, target: bytes, headers: Iterable[bytes] = (), body: bytes | None = None
) -> bytes:
    """The bytes of a request; with a body, its right Content-Length is added."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: gateway", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def only(*statuses: int) -> frozenset[int]:
    """The statuses that are right."""
    return frozenset(statuses)


REFUSED = only(400, 404, 405, 414, 431)
"""A path that names nothing: rest-server says 404; 400 where it is no URL path at all."""
