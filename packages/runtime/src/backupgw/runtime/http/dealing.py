"""Connections dealt out to several workers, to the one that has the fewest.

Workers that accept from one socket get what they are quick enough to take: of five connections that
come at once, which is what restic opens, the first to wake takes most. With SO_REUSEPORT chance
decides, and four of five go to one worker every third time. So the supervisor accepts, and hands
the connection over a socket (SCM_RIGHTS, unix(7)). It does so once in the life of a connection,
which is long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Connections accepted in a row, before other events are looked at."""

NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""What accept(2) says where there is no room for a connection just now."""


class Count(Protocol):
    """A number that two processes see."""

    value: int


@dataclass(frozen=True, slots=True)
class Line:
    """What a worker gets: where its connections come from.

    Attributes:
        sock: its end of a socket pair that keeps messages apart, and does not block.
        ended: how many connections it has lost so far, counted by itself.
        unix: of each listener, whether it is a unix socket.
    """

    sock: socket.socket
    ended: Count
    unix: tuple[bool, ...]


class Hand:
    """The supervisor's view of one worker process: where it gets its connections.

    Args:
        ended: zero, in memory that the worker will see.
        unix: of each listener, whether it is a unix socket.
    """

    def __init__(self, ended: Count, unix: tuple[bool, ...]) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._sock, theirs):
            end.setblocking(False)
        self.line = Line(theirs, ended, unix)
        self._dealt = 0

    @property
    def holds(self) -> int:
        """Connections that the worker has."""
        return self._dealt - self.line.ended.value

    def give(self, connection: socket.socket, number: int) -> bool:
        """Hand a connection over; False where the worker has not taken those before it."""
        try:
            socket.send_fds(self._sock, [bytes([number])], [connection.fileno()])
        except OSError:
            return False
        self._dealt += 1
        return True

    def let_go(self, *, line: bool) -> None:
        """Close the supervisor's end in a process forked off it, and the worker's, too, if told."""
        self._sock.close()
        if line:
            self.line.sock.close()

    def close(self) -> Iterator[tuple[socket.socket, int]]:
        """Hand over nothing more; yield what the worker, which has ended, did not take."""
        self._sock.close()
        with self.line.sock, contextlib.suppress(BlockingIOError):
            while (found := _received(self.line.sock)) is not None:
                yield found


def _received(line: socket.socket) -> tuple[socket.socket, int] | None:
    """Return the next connection of a line and its listener's number, None at the end.

    Raises:
        BlockingIOError: nothing has come yet.
    """
    try:
        message, descriptors, _, _ = socket.recv_fds(line, 1, 1)
    except BlockingIOError:
        raise
    except OSError:
        return None
    if not message or not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)
    connection = socket.socket(fileno=descriptors[0])
    connection.setblocking(False)
    return connection, message[0]


def accept_next(listener: socket.socket) -> socket.socket | None:
    """Accept one of those that wait at a listener; None where none does.

    Raises:
        OSError: of NO_ROOM, which was logged, or others.
    """
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    except OSError as error:
        if error.errno in NO_ROOM:
            logger.warning("no connection can be accepted: %s", error.strerror)
        raise
    return connection


def deal(listener: socket.socket, number: int, hands: Sequence[Hand]) -> bool:
    """Accept what waits at a listener and hand it out.

    Args:
        listener: does not block.
        number: tells the worker which listener it was.

    Returns:
        False where no worker takes anything now, or the system has no room.
    """
    for _ in range(AT_ONCE):
        if not hands:
            return False
        try:
            connection = accept_next(listener)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        if connection is None:
            return True
        with connection:
            if not hand_out(connection, number, hands):
                logger.warning("no worker takes a connection; it was closed")
                return False
    return True


def hand_out(connection: socket.socket, number: int, hands: Sequence[Hand]) -> bool:
    """Give a connection to who has the fewest; False where nobody takes it. It stays open here."""
    return any(hand.give(connection, number) for hand in sorted(hands, key=lambda each: each.holds))


class Taker:
    """The worker's side: takes connections from its line until `close`.

    Args:
        take: makes a connection of a socket; told whether it came by a unix socket.
    """

    def __init__(
        self, line: Line, take: Callable[[socket.socket, bool], Awaitable[object]]
    ) -> None:
        self._line = line
        self._take = take
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, on the running loop."""
        asyncio.get_running_loop().add_reader(self._line.sock, self._receive)

    def close(self) -> None:
        """Take nothing more."""
        if self._line.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._line.sock)
            self._line.sock.close()

    def count_end(self) -> None:
        """A connection has ended."""
        self._line.ended.value += 1

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                found = _received(self._line.sock)
            except BlockingIOError:
                return
            if found is None:
                self.close()  # the supervisor stops us, or is gone
                return
            task = asyncio.get_running_loop().create_task(self._make(*found))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _make(self, connection: socket.socket, number: int) -> None:
        try:
            await self._take(connection, self._line.unix[number])
        except OSError as error:  # of TLS, too
            logger.debug("a connection came to nothing: %s", error)
            self.count_end()
            with contextlib.suppress(OSError):
                connection.close()
