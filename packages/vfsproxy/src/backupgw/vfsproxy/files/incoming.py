"""The body of a request on its way to a thread that writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope

from backupgw.runtime.http.direct_body import DIRECT_BODY, Take
from backupgw.runtime.threads import Threads

BATCH = 1 << 20
"""Bytes gathered before a thread writes them: a hop to one costs as much as writing 100 KB."""

GATHERED = 256 << 10
"""Bytes of a body that is waited for before anything is done for it."""


class ClientLeft(Exception):
    """The body ended early: the client is gone, and there is nobody to answer."""


async def take_body(
    scope: Scope,
    receive: Receive,
    threads: Threads,
    write: Callable[[bytes | memoryview], object],
) -> None:
    """Hand a body to `write`, piece by piece, on threads; by the host's own way where there is one.

    Raises:
        ClientLeft: it ended early. What came before was handed over.
    """
    take: Take | None = scope.get("extensions", {}).get(DIRECT_BODY)
    if take is None:

        def write_all(pieces: Sequence[bytes]) -> None:
            for piece in pieces:
                write(piece)

        await batched(receive, lambda pieces: threads.run(write_all, pieces))
        return
    try:
        await take(write, threads)
    except OSError as error:  # the host's word for a client that left
        raise ClientLeft from error


async def batched(receive: Receive, write: Callable[[Sequence[bytes]], Awaitable[object]]) -> None:
    """Take a body from ASGI, and hand it on in batches, of what is there when it is cancelled too.

    Raises:
        ClientLeft: it ended early. What came before was handed over.
    """
    pieces: list[bytes] = []
    held = 0
    more = True
    left = False
    while more and not left:
        try:
            message = await receive()
        except asyncio.CancelledError:
            if pieces:
                await write(pieces)
            raise
        left = message["type"] == "http.disconnect"
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        if piece:
            pieces.append(piece)
            held += len(piece)
        if held >= BATCH:
            batch, pieces, held = pieces, [], 0
            await write(batch)
    if pieces:
        await write(pieces)
    if left:
        raise ClientLeft


async def gather(receive: Receive, pieces: list[bytes]) -> None:
    """Wait for a whole body that is known to be small.

    Args:
        pieces: what has come is added to it.

    Raises:
        ClientLeft: it ended early.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
