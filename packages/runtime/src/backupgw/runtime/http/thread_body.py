"""The body of an answer that threads write to the socket themselves.

The event loop is one core. What such a body costs it is a turn now and then, and waiting for
clients that are slow; a thread writes without the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import select
from abc import ABC, abstractmethod

from backupgw.runtime.threads import Threads

PATIENCE = 20
"""Milliseconds in which a thread waits for a fast client; the loop waits for others."""


class ThreadBody(ABC):
    """The body of one answer on its way to a socket.

    Args:
        size: its bytes, at least 1.

    Attributes:
        left: bytes yet to be sent.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self._writable: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether it is the client that is waited for."""
        return self._writable is not None

    @abstractmethod
    def _turn(self, sock: int) -> tuple[int, bool]:
        """Send some of what is left, on a thread.

        Args:
            sock: descriptor of a socket that does not block.

        Returns:
            How many bytes were sent, and whether the socket takes no more for now.
        """

    async def send(self, sock: int, threads: Threads) -> int:
        """Send what one turn allows, then wait until the socket takes more; return how many bytes.

        Args:
            sock: descriptor of a socket that does not block and that the loop does not know.
            threads: where the bytes are written.

        Raises:
            ConnectionError: the client is gone.
            Exception: what reading the bytes raises.
        """
        sent, full = await threads.run(self._turn, sock)
        self.left -= sent
        if self.left and full:
            loop = asyncio.get_running_loop()
            self._writable = loop.create_future()
            loop.add_writer(sock, self.wake)
            try:
                await self._writable
            finally:
                loop.remove_writer(sock)
                self._writable = None
        return sent

    def wake(self) -> None:
        """The socket takes more, or the connection is gone."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


def takes_more(sock: int) -> bool:
    """Whether a socket that took nothing takes something within a moment."""
    waiter = select.poll()
    waiter.register(sock, select.POLLOUT)
    return bool(waiter.poll(PATIENCE))
