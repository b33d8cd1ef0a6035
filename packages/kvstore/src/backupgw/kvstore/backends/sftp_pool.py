"""The SSH connections of a place, and the SFTP sessions in them that operations share.

A session carries any number of operations, but a server works through it one request at a time: an
`fsync` holds up what was asked after it. So operations that overlap are spread over several. New
ones are opened while others are busy, up to a bound; a server that gives no more is left at that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from .errors import BackendConnectionError, BackendError, BackendMustBeOpen
from .sftp_login import Connection
from .sftp_wire import Session

T = TypeVar("T")

_NO_MORE = 60.0
"""Seconds for which a server that refused a further session or connection is not asked again."""


_inherited: list[_Line] = []
"""Connections of the process that this one was forked from: nothing of them is ever touched again,
not by the garbage collector either, since their locks may be held by threads that are not here."""


@dataclass(eq=False)
class _Line:
    """A connection and its sessions."""

    connection: Connection
    sessions: list[Session] = field(default_factory=list)
    full: bool = False
    """The server gives no further session in it."""
    suspect: bool = False
    """A session in it fell silent."""

    def end(self) -> None:
        """Close the connection; that ends the sessions."""
        self.connection.close()
        for session in self.sessions:
            session.end(farewell=False)


@dataclass(eq=False)
class Seat:
    """One operation's share of a session, until it is given back."""

    session: Session
    line: _Line
    users: int = 0


class Pool:
    """Sessions, opened as they are needed. For any number of threads; a process forked from this
    one gets connections of its own.

    Args:
        dial: makes a connection.
        server: what messages call the server.
        connections: how many there are at most.
        sessions: how many a connection has at most.
        timeout: seconds without an answer after which a session counts as broken.
    """

    def __init__(
        self,
        dial: Callable[[], Connection],
        server: str,
        *,
        connections: int,
        sessions: int,
        timeout: float,
    ) -> None:
        self.server = server
        self._dial = dial
        self._most_lines = connections
        self._most_sessions = sessions
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._seats: list[Seat] = []
        self._lines: list[_Line] = []
        self._growing = False
        self._attempts = 0
        self._failure: BackendError | None = None
        """Of the last attempt to open a session."""
        self._no_more_until = 0.0
        self._ended: list[_Line | Session] = []
        self._closed = False

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.extend(self._lines)
            for line in self._lines:
                line.connection.abandon()
            self._begin()

    def take(self) -> Seat:
        """Return a share of the session that is least in use.

        Raises:
            BackendError: there is none and none can be had.
        """
        self._after_fork()
        with self._changed:
            while True:
                if self._closed:
                    raise BackendMustBeOpen(self.server)
                self._set_broken_aside()
                seat = min(self._seats, key=lambda each: each.users, default=None)
                grow = not self._growing and self._may_grow()
                if seat is not None and not (grow and seat.users):
                    return self._occupy(seat)
                if grow:
                    self._growing = True
                    break
                attempt = self._attempts
                self._changed.wait()
                if attempt != self._attempts and not self._seats and self._failure is not None:
                    raise _again(self._failure)  # it would be the same for this one
        return self._grow()

    def _occupy(self, seat: Seat) -> Seat:
        seat.users += 1
        return seat

    def give(self, seat: Seat) -> None:
        """Give a share back."""
        with self._changed:
            seat.users -= 1

    def _may_grow(self) -> bool:
        if not self._seats:
            return True
        room = len(self._lines) < self._most_lines or any(map(self._has_room, self._lines))
        return room and time.monotonic() >= self._no_more_until

    def _has_room(self, line: _Line) -> bool:
        return (
            not line.full
            and not line.suspect
            and len(line.sessions) < self._most_sessions
            and line.connection.alive
        )

    def _set_broken_aside(self) -> None:
        """Use no session that broke, and no connection on which one fell silent: what is left of
        that is ended once nobody uses it."""
        for seat in [seat for seat in self._seats if seat.session.broken]:
            self._seats.remove(seat)
            if seat.session.stalled:
                seat.line.suspect = True
            elif seat.line.connection.alive:
                seat.line.sessions.remove(seat.session)
                self._ended.append(seat.session)
        for seat in [seat for seat in self._seats if seat.line.suspect and not seat.users]:
            self._seats.remove(seat)
        used = {id(seat.line) for seat in self._seats}
        for line in [*self._lines]:
            if not line.connection.alive or (line.suspect and id(line) not in used):
                self._lines.remove(line)
                self._ended.append(line)

    def _end(self) -> None:
        """End what was set aside. Not with the lock: it can take a moment."""
        with self._changed:
            ended, self._ended = self._ended, []
        for each in ended:
            each.end()

    def _grow(self) -> Seat:
        """Open a session, in a connection that has room or a new one."""
        self._end()
        try:
            seat = self._new_seat()
        except BackendError as error:
            with self._changed:
                self._grown(error)
                self._no_more_until = time.monotonic() + _NO_MORE
                other = min(self._seats, key=lambda each: each.users, default=None)
                if other is not None and not other.session.broken:
                    return self._occupy(other)
            raise
        except BaseException:
            with self._changed:
                self._grown(None)
            raise
        with self._changed:
            self._grown(None)
            if not self._closed:
                self._seats.append(seat)
                return self._occupy(seat)
        seat.line.end()
        raise BackendMustBeOpen(self.server)

    def _grown(self, failure: BackendError | None) -> None:
        self._growing = False
        self._attempts += 1
        self._failure = failure
        self._changed.notify_all()

    def _new_seat(self) -> Seat:
        with self._changed:
            line = next(filter(self._has_room, self._lines), None)
            may_dial = len(self._lines) < self._most_lines
        if line is not None:
            try:
                return self._open_session(line)
            except BackendConnectionError:
                line.full = True
                if not may_dial:
                    raise
        line = _Line(self._dial())
        try:
            seat = self._open_session(line)
        except BaseException:
            line.end()
            raise
        with self._changed:
            self._lines.append(line)
        return seat

    def _open_session(self, line: _Line) -> Seat:
        session = Session(line.connection.open_channel(), self.server, self._timeout)
        with self._changed:
            line.sessions.append(session)
        return Seat(session, line)

    def hold(self, call: Callable[[Session], T]) -> tuple[Seat, T]:
        """Return what `call` returns for a session, and the session with it, to be given back; if
        it breaks, once more with another, and again while they are sessions that stood before:
        when a server restarts, all of them are dead and only their use tells.

        Raises:
            BackendError: what `call` raised.
        """
        began = time.monotonic()
        repeated = False
        while True:
            seat = self.take()
            try:
                return seat, call(seat.session)
            except BackendConnectionError:
                self.give(seat)
                if not seat.session.broken or seat.session.stalled:
                    raise
                if repeated and seat.session.opened >= began:
                    raise
                repeated = True
            except BaseException:
                self.give(seat)
                raise

    def run(self, call: Callable[[Session], T]) -> T:
        """The same where the session is not needed any longer."""
        seat, result = self.hold(call)
        self.give(seat)
        return result

    def take_living(self) -> Seat | None:
        """Return a share of a session that is open already, None if there is none."""
        self._after_fork()
        with self._changed:
            self._set_broken_aside()
            seat = min(self._seats, key=lambda each: each.users, default=None)
            return None if seat is None else self._occupy(seat)

    def close(self) -> None:
        """End every session and connection, with their threads."""
        self._after_fork()
        with self._changed:
            self._closed = True
            lines = [*self._lines, *self._ended]
            self._seats, self._lines, self._ended = [], [], []
            self._changed.notify_all()
        for line in lines:
            line.end()


def _again(error: BackendError) -> BackendError:
    """Return an error like another one, which is not to be shared among threads."""
    same = type(error)(*error.args, retryable=error.retryable, retry_after=error.retry_after)
    same.__cause__ = error.__cause__
    return same
