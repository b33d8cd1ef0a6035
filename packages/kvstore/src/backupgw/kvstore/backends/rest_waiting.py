"""How a client waits for an answer: awake at first, as long as that is worth it.

A server near by has a small answer ready in a tenth of a millisecond, and half as much again goes
by until a processor that went to sleep meanwhile has found back to the thread that waits. So the
first bytes are asked for again and again for `LONGEST`. An answer that has not come by then was
waited for in vain: the next `FEWEST` are slept for at once, and after each further one that is late
twice as many, up to `MOST`. Where servers are far, answers large or processors taken, that leaves
`LONGEST` in a thousand of requests.
"""

from __future__ import annotations

import socket
import time

TAKEN = 64 << 10
"""Bytes asked for at a time."""

LONGEST = 200e-6
"""Seconds that a thread stays awake for an answer."""

FEWEST, MOST = 16, 4096


class Waiting:
    """What is known of how soon one server answers. Threads that use one at the same time may
    count wrong, which only moves a pause."""

    __slots__ = ("_pause", "_skip")

    def __init__(self) -> None:
        self._skip = 0
        self._pause = FEWEST

    def first(self, sock: socket.socket) -> bytes:
        """Return the first bytes of an answer, b"" where the connection has ended.

        Raises:
            OSError: it broke, or nothing came in the time that the socket waits.
        """
        if self._skip or type(sock) is not socket.socket:  # TLS cannot be asked like that
            self._skip -= self._skip > 0
            return sock.recv(TAKEN)
        end = time.perf_counter() + LONGEST
        while time.perf_counter() < end:
            try:
                data = sock.recv(TAKEN, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            self._pause = FEWEST
            return data
        self._skip = self._pause
        self._pause = min(self._pause * 2, MOST)
        return sock.recv(TAKEN)
