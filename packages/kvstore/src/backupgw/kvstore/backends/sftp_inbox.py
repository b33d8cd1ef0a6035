"""What a session's channel receives, taken apart in the thread that receives it.

paramiko puts what comes into a buffer and wakes whoever reads that; a thread of ours would take
each answer out of it and wake whoever waits for it. With this in the buffer's place an answer
wakes only the one who waits. What is left for a thread of ours is what must not be done where
answers are received, since it may wait for the server: to tell it how much was taken.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import paramiko
from paramiko.buffered_pipe import BufferedPipe

if TYPE_CHECKING:
    _Pipe = BufferedPipe[bytes]
else:
    _Pipe = BufferedPipe  # generic in its stubs only

_LARGEST_ANSWER = 8 << 20
"""Bytes of a packet above which the other side is taken for no SFTP server."""

_TOLD = 256 << 10
"""Bytes after which the server is told that they were taken; it sends 2 MiB unasked."""


class Inbox(_Pipe):
    """Takes the place of a channel's buffer.

    Args:
        channel: that nobody reads from by now, and nobody else will.
        server: for names of threads.
        take: is given each packet, without its length, by the connection's thread; must not wait.
        ended: is told once why nothing will come any more.

    Attributes:
        heard: when the last bytes came, by the monotonic clock.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        server: str,
        take: Callable[[memoryview], None],
        ended: Callable[[str, Exception | None], None],
    ) -> None:
        super().__init__()
        self.heard = time.monotonic()
        self._channel = channel
        self._take = take
        self._ended = ended
        self._changed = threading.Condition()
        self._untold = 0
        self._over = False
        self._head = bytearray()
        self._packet: bytearray | None = None
        self._filled = 0
        self._teller = threading.Thread(
            target=self._tell, name=f"sftp window of {server}", daemon=True
        )
        channel.in_buffer = self
        if channel.closed or channel.eof_received:
            self.close()
        self._teller.start()

    def feed(self, data: bytes) -> None:
        """Take what came; called by the connection's thread alone."""
        self.heard = time.monotonic()
        if self._over:
            return
        with self._changed:
            self._untold += len(data)
            if self._untold >= _TOLD:
                self._changed.notify()
        try:
            self._take_apart(memoryview(data))
        except (EOFError, struct.error) as error:
            self._end(str(error), error)

    def _take_apart(self, view: memoryview) -> None:
        while view:
            if self._packet is not None:
                view = self._fill(self._packet, view)
            elif self._head or len(view) < 4:
                view = self._begin(view)
            else:
                size = _size_of(view)
                if len(view) < 4 + size:
                    self._packet, self._filled = bytearray(size), 0
                    view = view[4:]
                else:
                    self._take(view[4 : 4 + size])
                    view = view[4 + size :]

    def _begin(self, view: memoryview) -> memoryview:
        """Put a length together that came in two; return what is behind it."""
        part = view[: 4 - len(self._head)]
        self._head += part
        if len(self._head) == 4:
            self._packet, self._filled = bytearray(_size_of(self._head)), 0
            self._head.clear()
        return view[len(part) :]

    def _fill(self, packet: bytearray, view: memoryview) -> memoryview:
        """Add to a packet that is not whole yet; return what is behind it."""
        part = view[: len(packet) - self._filled]
        packet[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        if self._filled == len(packet):
            self._packet = None
            self._take(memoryview(packet))
        return view[len(part) :]

    def _tell(self) -> None:
        try:
            while self._channel.recv(1):
                pass
        except (OSError, paramiko.SSHException, EOFError):
            return  # the connection ends, and says so

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Wait until bytes were taken that the server was not told of; return as many, b"" at the
        end. The channel tells the server of them."""
        with self._changed:
            while self._untold < _TOLD and not self._over:
                self._changed.wait()
            count, self._untold = self._untold, 0
        return b"" if self._over else bytes(count)

    def close(self) -> None:
        """Nothing comes any more; called by the channel, too."""
        self._end("the server closed the session", None)

    def _end(self, reason: str, cause: Exception | None) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._ended(reason, cause)

    def join(self) -> None:
        """Wait for its thread, after `close`."""
        self._teller.join()


def _size_of(head: bytes | bytearray | memoryview) -> int:
    """Return the bytes of a packet by its length. Raises EOFError where there is no such packet."""
    size: int = struct.unpack_from(">I", head)[0]
    if not 5 <= size <= _LARGEST_ANSWER:
        raise EOFError(f"a packet of {size} bytes: what answers is no SFTP server")
    return size
