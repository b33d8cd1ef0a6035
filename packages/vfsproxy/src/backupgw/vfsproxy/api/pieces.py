"""Answers that are made while they are sent: a megabyte on a thread, then on to the client."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from backupgw.runtime.threads import Threads

from .exchange import Exchange, Headers

_MOST = 500
"""Pieces that a thread makes at a time, of which a streamed listing has one for each entry."""
_ENOUGH = 1 << 20
"""Bytes after which it makes no more."""


def some_of(pieces: Iterator[bytes]) -> list[bytes]:
    """Return the next pieces; none at the end."""
    found: list[bytes] = []
    size = 0
    for piece in islice(pieces, _MOST):
        found.append(piece)
        size += len(piece)
        if size >= _ENOUGH:
            break
    return found


async def send_pieces(
    exchange: Exchange,
    threads: Threads,
    headers: Headers,
    pieces: Iterator[bytes],
    first: list[bytes],
) -> None:
    """Send an answer of unknown length.

    Args:
        pieces: what is left; closed at the end, whatever it is.
        first: what was made already, to see that it can be made at all.

    Raises:
        BackendError: the volume failed in the middle; the answer can only be broken off.
    """
    try:
        await exchange.start(200, headers)
        if exchange.method != "HEAD":
            while first:
                await exchange.send_body(b"".join(first), more=True)
                first = await threads.run(some_of, pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            await threads.run(close)
    await exchange.send_body(b"", more=False)
