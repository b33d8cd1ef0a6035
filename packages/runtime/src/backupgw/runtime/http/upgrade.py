"""A connection that stops speaking HTTP: the ASGI extension `backupgw.upgrade`.

A request that asks for another protocol (`Upgrade`, RFC 9110, 7.8) has it in its scope. An
application that agrees calls it with the headers of its 101; what follows on the connection is then
bytes both ways, which the application passes on or speaks itself:

    upgrade = scope["extensions"].get(UPGRADE)
    tunnel = await upgrade([(b"upgrade", b"websocket"), (b"connection", b"upgrade")])
    while data := await tunnel.read():
        await tunnel.write(data)
    tunnel.close()

One that does not agree answers as ever, and the connection ends after the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

UPGRADE = "backupgw.upgrade"
WINDOW = 256 * 1024
"""Bytes held for the application before the client must wait."""

Upgrade = Callable[[Sequence[tuple[bytes, bytes]]], Awaitable["Tunnel"]]


class Gone(OSError):
    """The client has closed the connection."""


class Link(Protocol):
    """What a tunnel needs of its connection."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class HttpLink:
    """A connection of the HTTP host, as its tunnel sees it.

    Args:
        transport: what bytes are written to.
        flow: whether either side has to wait.
    """

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow

    def pause_reading(self) -> None:
        self._flow.pause_reading()

    def resume_reading(self) -> None:
        self._flow.resume_reading()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drain(self) -> None:
        if self._flow.write_paused:
            await self._flow.drain()

    def close(self) -> None:
        self._transport.close()


class Tunnel:
    """The bytes of a connection after the 101."""

    def __init__(self, link: Link, early: bytes) -> None:
        self._link = link
        self._parts = [early] if early else []
        self._held = len(early)
        self._news = asyncio.Event()
        self._ended = False
        self._paused = False

    async def read(self) -> bytes:
        """Return what came, at least a byte; none when the client has left or the host stops."""
        while not self._parts:
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused and not self._ended:
            self._paused = False
            self._link.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client takes none.

        Raises:
            Gone: the client has left.
        """
        if self._ended:
            raise Gone("the client has closed the connection")
        self._link.write(data)
        await self._link.drain()

    def close(self) -> None:
        """End the connection, after what was written. Idempotent."""
        self._ended = True
        self._link.close()

    # The connection's side

    def feed(self, data: bytes) -> None:
        """The client sent something."""
        self._parts.append(data)
        self._held += len(data)
        if self._held > WINDOW and not self._paused:
            self._paused = True
            self._link.pause_reading()
        self._news.set()

    def end(self) -> None:
        """Nothing more comes: the client left, or the host stops."""
        self._ended = True
        self._news.set()
