"""The bytes of an item as the body of an answer: by the shortest way there is.

Small answers come from the page cache without a thread, long ones are left to the host where no
TLS lies between (`file_body`, `stream_body`), and everything else is read on threads, piece by
piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from backupgw.kvstore.backends.base import Reader
from backupgw.runtime.http.file_body import FILE_BODY
from backupgw.runtime.http.stream_body import STREAM_BODY
from backupgw.runtime.threads import Threads

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CHUNK = 512 << 10
"""Bytes read and handed to the socket at a time; larger bodies are left to threads of the host
where they lie in a file."""


async def send_rest(send: Send, reader: Reader, threads: Threads) -> None:
    """Send what a reader has left, which is something, as the rest of a body whose head is sent."""
    while reader.remaining:
        piece = reader.read_nowait(CHUNK)
        if piece is None:
            piece = await threads.run(reader.read, CHUNK)
        more = reader.remaining > 0
        await send({"type": "http.response.body", "body": piece, "more_body": more})


async def send_long(
    scope: MutableMapping[str, Any], send: Send, reader: Reader, threads: Threads
) -> None:
    """Like `send_rest`, for a body of more than CHUNK bytes of which nothing was sent yet."""
    extensions = scope.get("extensions", ())
    span = reader.file_span() if FILE_BODY in extensions else None
    if span is not None:
        await send({"type": FILE_BODY, "fd": span.fd, "offset": span.offset, "size": span.size})
    elif STREAM_BODY in extensions:
        message = {"read_into": reader.read_into, "size": reader.remaining, "threads": threads}
        await send({"type": STREAM_BODY, **message})
    else:
        await send_rest(send, reader, threads)
