"""Long bodies that threads take from the socket themselves.

On its usual way a body is copied out of the event loop's buffer, out of the parser's and together,
and each piece costs the loop a turn. Here a thread reads the socket into one small buffer, which
stays in the processor's cache while it is hashed and written, and the loop waits for slow clients
alone. The parser never sees these bytes; a new one carries on behind them.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Awaitable, Callable, Sequence

from backupgw.runtime.threads import Threads

DIRECT_BODY = "backupgw.direct_body"
"""The ASGI extension: a `Take`, offered once for a body whose length is known and at least LEAST,
where no TLS lies between."""

Consume = Callable[[bytes | memoryview], object]
"""Takes a piece of a body, on a thread; the buffer is used again afterwards."""

Take = Callable[[Consume, Threads], Awaitable[None]]
"""Hands the whole body to a `Consume`, piece by piece, on the threads given. Raises what that
raises, after which the connection ends with the answer; OSError where the client has left or was
given up, and there is nobody to answer."""

LEAST = 1 << 20  # bytes; a smaller body comes with its head, or nearly
PIECE = 256 << 10  # bytes of the buffer: what a core's cache holds beside all else
TURN = 16 << 20  # bytes after which a thread lets others have their turn
TURN_SECONDS = 0.05  # the same for slow clients
PATIENCE = 20  # milliseconds in which a thread waits for a fast client; the loop waits for others


class BodyLost(Exception):
    """Nothing more will come. `reset`: nor can the client be answered."""

    def __init__(self, text: str, *, reset: bool) -> None:
        super().__init__(text)
        self.reset = reset


def receive_span(sock: int, left: int, before: Sequence[bytes], consume: Consume) -> int:
    """Hand over `before` and then what comes, `left` bytes in all at most; return how many.

    Returns early when nothing comes for a moment, and after a turn. What came before a client left
    is handed over all the same: a broken upload may be carried on later.

    Args:
        sock: a socket that does not block.

    Raises:
        BodyLost: the client has left.
    """
    for part in before:
        consume(part)
    taken = sum(map(len, before))
    buffer = memoryview(bytearray(min(PIECE, max(left - taken, 1))))
    most = min(left, taken + TURN)
    end = time.monotonic() + TURN_SECONDS
    held = 0
    while taken + held < most and time.monotonic() < end:
        free = min(len(buffer) - held, left - taken - held)
        try:
            came = os.readv(sock, (buffer[held : held + free],))
        except BlockingIOError:
            if _more_comes(sock):
                continue
            break
        except OSError as error:
            _hand_over(consume, buffer[:held])
            raise BodyLost(str(error), reset=True) from error
        if not came:
            _hand_over(consume, buffer[:held])
            raise BodyLost("the body of the request ended early", reset=False)
        held += came
        if came == free:
            consume(buffer[:held])
            taken += held
            held = 0
    if held:
        consume(buffer[:held])
    return taken + held


def _hand_over(consume: Consume, rest: memoryview) -> None:
    if rest:
        consume(rest)


def _more_comes(sock: int) -> bool:
    waiter = select.poll()
    waiter.register(sock, select.POLLIN)
    return bool(waiter.poll(PATIENCE))


class DirectBody:
    """The rest of one body on its way from a socket.

    Attributes:
        left: bytes yet to come, those counted that the loop has received already.
    """

    __slots__ = ("_before", "_readable", "left")

    def __init__(self, left: int, before: Sequence[bytes]) -> None:
        self.left = left
        self._before = before
        self._readable: asyncio.Future[None] | None = None

    async def receive(self, sock: int, consume: Consume, threads: Threads) -> None:
        """Hand over what one turn brings.

        Args:
            sock: descriptor of a socket that does not block and that the loop does not know.

        Raises:
            BodyLost: see `receive_span`.
        """
        before, self._before = self._before, ()
        self.left -= await threads.run(receive_span, sock, self.left, before, consume)

    async def wait(self, sock: int) -> None:
        """Wait until more has come, or `wake`."""
        loop = asyncio.get_running_loop()
        self._readable = loop.create_future()
        loop.add_reader(sock, self.wake)
        try:
            await self._readable
        finally:
            loop.remove_reader(sock)
            self._readable = None

    def wake(self) -> None:
        """More has come, or the connection is gone."""
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
