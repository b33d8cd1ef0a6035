"""A large value gets onto the server's disk while the rest of it is sent.

A server works through a session in order, so a sync would hold up what was sent after it; another
session, with a handle of its own on the same file, holds up nothing. The sync at the end, by the
writer's own handle, is still what the promise stands on: it finds little left to do, and is told of
whatever could not be written (each handle is, by Linux).
"""

from __future__ import annotations

from contextlib import suppress

from . import sftp_answers as answers
from . import sftp_wire as wire
from .errors import BackendError
from .sftp_answers import Refused
from .sftp_place import Place
from .sftp_pool import Seat
from .sftp_wire import Request, Session

_EVERY = 64 << 20
"""Bytes after which the server's disk is set to work."""


class FlushAhead:
    """Syncs a file that is being written; for one thread.

    Args:
        place: in which it lies.
        session: by which it is written.
    """

    def __init__(self, place: Place, session: Session) -> None:
        self._place = place
        self._session = session
        self._due = 0
        self._useless = not place.sync
        self._seat: Seat | None = None
        self._handle = b""
        self._request: Request | None = None

    def acknowledged(self, size: int, path: bytes) -> None:
        """So many bytes more were written to the file, which lies at `path` now.

        Raises:
            Refused: what was written before could not be synced.
        """
        self._due += size
        if self._useless or self._due < _EVERY:
            return
        if self._request is not None and not self._request.ready:
            return
        try:
            self._take_answer()
            if self._seat is None and not self._open(path):
                return
            assert self._seat is not None
            self._request = self._seat.session.extended(wire.FSYNC, self._handle)
            self._due = 0
        except BackendError:
            self.drop()

    def _open(self, path: bytes) -> bool:
        seat = self._place.pool.take()
        session = seat.session
        try:
            if session is not self._session:
                asked = session.send(
                    wire.OPEN,
                    wire.text(path),
                    wire.number(wire.FOR_WRITING),
                    wire.NO_ATTRIBUTES,
                )
                self._handle = wire.text(answers.string(session.result(asked, wire.HANDLE)))
                self._seat = seat
        except Refused:
            pass  # a server that lets nobody open it twice
        finally:
            if self._seat is None:
                self._useless = True
                self._place.pool.give(seat)
        return self._seat is not None

    def _take_answer(self) -> None:
        request, self._request = self._request, None
        if request is not None and self._seat is not None:
            self._seat.session.done(request)

    def end(self) -> None:
        """Wait for what is under way, and close the handle. Idempotent.

        Raises:
            Refused: it could not be synced.
        """
        try:
            # Where the session broke, the writer's own sync says what counts.
            with suppress(BackendError):
                self._take_answer()
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the handle, whatever is under way. Idempotent."""
        self._useless = True
        self._request = None
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.session.forget(wire.CLOSE, self._handle)
            self._place.pool.give(seat)
