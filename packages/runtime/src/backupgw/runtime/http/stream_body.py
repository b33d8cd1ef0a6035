"""Bodies that come from somewhere else, from a far place most of all, and are passed on by threads.

On the usual way each piece is an object of its own, put together, handed to the loop and copied
there for a socket that is full. Here a thread reads into one small buffer, which stays in the
processor's cache, and writes it to the client. While it writes, the system receives what comes
next: two buffers of the system's lie between the place and the client, and none of ours is larger
than PIECE.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from backupgw.runtime.http.thread_body import ThreadBody, takes_more

STREAM_BODY = "backupgw.stream"
"""The ASGI extension, and the type of its message: `read_into`, `size` (bytes, at least 1) and
`threads`, sent after `http.response.start` with the same Content-Length. Not offered where TLS
needs the bytes itself."""

ReadInto = Callable[[memoryview], int]
"""Fills a buffer's beginning with the next bytes, on a thread; returns how many, at least 1."""

PIECE = 256 << 10  # bytes of the buffer
WORTH = 192 << 10  # bytes that are gathered before they are sent, for each sending costs
FILLING_SECONDS = 0.01  # the same for slow places
TURN = 16 << 20  # bytes after which a thread lets others have their turn
TURN_SECONDS = 0.25  # the same for slow places


class StreamBody(ThreadBody):
    """A body that is read piece by piece.

    Args:
        read_into: reads it; what it raises ends the answer.
        size: its bytes.
    """

    def __init__(self, read_into: ReadInto, size: int) -> None:
        super().__init__(size)
        self._read_into = read_into
        self._buffer = memoryview(bytearray(min(PIECE, size)))
        self._unsent = self._buffer[:0]
        self._failure: Exception | None = None

    def _turn(self, sock: int) -> tuple[int, bool]:
        if self._failure is not None:
            raise self._failure
        sent = 0
        end = time.monotonic() + TURN_SECONDS
        while sent < min(self.left, TURN) and time.monotonic() < end:
            try:
                if not self._unsent:
                    self._unsent = self._buffer[: self._read(self.left - sent)]
                taken = os.write(sock, self._unsent)
            except BlockingIOError:
                if takes_more(sock):
                    continue
                return sent, True
            except Exception as error:
                if not sent:
                    raise
                self._failure = error  # what was sent is counted first
                break
            self._unsent = self._unsent[taken:]
            sent += taken
        return sent, False

    def _read(self, left: int) -> int:
        """Fill the buffer's beginning; return how many bytes, not a few where more come at once."""
        most = min(left, len(self._buffer))
        end = time.monotonic() + FILLING_SECONDS
        held = 0
        while held < min(most, WORTH) and (not held or time.monotonic() < end):
            count = self._read_into(self._buffer[held:most])
            if not count:
                raise EOFError(f"the body ended {left - held} bytes early")
            held += count
        return held
