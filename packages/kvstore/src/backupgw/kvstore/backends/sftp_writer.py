"""How a value gets onto a server: under a hidden name, several pieces on their way at once.

The order is the promise: every piece acknowledged, the file synced and closed, then named, then
the folder synced. A write that the server refused is noticed before the file gets its name.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from contextlib import suppress

from . import sftp_answers as answers
from . import sftp_naming as naming
from . import sftp_wire as wire
from .base import Writer
from .checkpoint_tokens import write_token
from .errors import BackendError
from .plan import Plan
from .posixfs_leftovers import PART
from .sftp_answers import Refused
from .sftp_errors import not_written, translate
from .sftp_flushing import FlushAhead
from .sftp_naming import Features
from .sftp_place import Begun, Place
from .sftp_pool import Seat
from .sftp_tree import Tree, handle_of
from .sftp_wire import Request, Session

_UNDER_WAY = 32
"""Pieces sent before the first is acknowledged; the connection's own window is smaller."""

_COPIED_AT_ONCE = 32 << 20


class SftpWriter(Writer):
    """A value on its way onto a server.

    Args:
        place: in which the item is to be.
        seat: the share of a session in which the file is open; given back at the end.
        begun: the file.
    """

    def __init__(
        self,
        place: Place,
        seat: Seat,
        plan: Plan,
        begun: Begun,
    ) -> None:
        self._place = place
        self._seat: Seat | None = seat
        self.session = seat.session
        self._plan = plan
        self._folder = begun.folder
        self._hidden = begun.hidden
        self._handle: bytes | None = wire.text(begun.handle)
        self._folder_handle = begun.folder_handle
        self._syncs_folder = begun.folder_handle is not None
        self._missing = list(begun.missing)
        self._written = 0
        self._sent = 0
        self._tail = bytearray()
        self._under_way: deque[tuple[int, Request]] = deque()
        self._digest = hashlib.sha256() if plan.expected_hash is not None else None
        self._piece = self.session.limits.write
        self._failed: BackendError | None = None
        self._ahead = FlushAhead(place, self.session)

    @property
    def offset(self) -> int:
        return self._written

    def catch_up(self, size: int) -> None:
        """Take `size` bytes for written that lie in the file already. Raises BackendError."""
        while self._digest is not None and self._sent < size:
            wanted = min(self.session.limits.read, size - self._sent)
            place = wire.long(self._sent)
            try:
                data = answers.data(
                    self.session.result(
                        self.session.send(wire.READ, self._file, place, wire.number(wanted)),
                        wire.DATA,
                    )
                )
            except Refused as error:
                raise translate(error, self._plan.name) from error
            self._digest.update(data)
            self._sent += len(data)
        self._sent = self._written = size

    @property
    def _file(self) -> bytes:
        if self._handle is None:
            raise BackendError(f"{self._plan.name}: the writer has ended")
        return self._handle

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._require_whole()
        view = memoryview(data).cast("B")
        self._plan.check_room(self._written + len(view))
        if self._digest is not None:
            self._digest.update(view)
        self._written += len(view)
        if self._tail:
            fill = view[: self._piece - len(self._tail)]
            self._tail += fill
            view = view[len(fill) :]
            if len(self._tail) == self._piece:
                self._flush()
        while len(view) >= self._piece:
            self._send(view[: self._piece])
            view = view[self._piece :]
        self._tail += view

    def _flush(self) -> None:
        if self._tail:
            piece, self._tail = self._tail, bytearray()
            self._send(memoryview(piece))

    def _send(self, piece: memoryview) -> None:
        size = len(piece)
        request = self.session.send(
            wire.WRITE, self._file, wire.long(self._sent), wire.number(size), piece
        )
        self._sent += size
        self._under_way.append((size, request))
        while self._under_way and (
            len(self._under_way) > _UNDER_WAY or self._under_way[0][1].ready
        ):
            self._acknowledge()

    def _acknowledge(self) -> None:
        size, request = self._under_way.popleft()
        try:
            self.session.done(request)
            self._ahead.acknowledged(size, self._hidden_path)
        except Refused as error:
            raise self._fail(error, size) from error

    def _fail(self, refused: Refused, wanted: int) -> BackendError:
        """Return the error for bytes that were not written, and take the value for lost."""
        room = self._place.room(self.session)
        self._failed = not_written(refused, self._plan.name, room, wanted)
        return self._failed

    def _require_whole(self) -> None:
        if self._seat is None:
            raise BackendError(f"{self._plan.name}: the writer has ended")
        if self._failed is not None:
            raise BackendError(f"{self._plan.name}: a write failed before") from self._failed

    def copy_from(self, handle: bytes, offset: int, size: int) -> None:
        """Have the server take bytes of another file of its own. Raises BackendError."""
        self._flush()
        while size:
            part = min(size, _COPIED_AT_ONCE)
            request = self.session.extended(
                wire.COPY_DATA,
                wire.text(handle),
                wire.long(offset),
                wire.long(part),
                self._file,
                wire.long(self._sent),
            )
            self._under_way.append((part, request))
            self._acknowledge_all()
            self._sent += part
            self._written += part
            offset, size = offset + part, size - part

    def _acknowledge_all(self) -> None:
        while self._under_way:
            self._acknowledge()

    # -- the end

    def check(self) -> None:
        self._require_whole()
        digest = self._digest.hexdigest() if self._digest is not None else None
        self._plan.check_content(self._written, digest)

    def commit(self) -> None:
        self.check()
        self._finish_file()
        try:
            self._make_missing()
            self._hold_folder()
            source = self._hidden_path
            synced: list[Request] = []
            if self._plan.if_absent:
                naming.name_new(*self._naming, source, self._plan.name, self._syncing(synced))
            else:
                naming.replace(*self._naming, source, self._plan.name, self._syncing(synced))
            for request in synced:
                self.session.done(request)
        except Refused as error:
            raise self._not_named(error) from error
        self._end()

    @property
    def _naming(self) -> tuple[Session, Features, Tree]:
        return self.session, self._place.features, self._place.tree

    @property
    def _hidden_path(self) -> bytes:
        folder = self._place.tree.path(self._folder).rstrip(b"/")
        return folder + b"/" + self._hidden.encode()

    def _hold_folder(self) -> None:
        """Have the handle by which the folder is synced; a commit that was refused let it go."""
        if self._syncs_folder and self._folder_handle is None:
            parent = self._plan.name.rpartition("/")[0]
            request = self._place.tree.open_folder(self.session, parent)
            self._folder_handle = handle_of(self.session, request)

    def _syncing(self, synced: list[Request]) -> naming.Then:
        def sync() -> None:
            handle, self._folder_handle = self._folder_handle, None
            if handle is not None:
                synced.append(self.session.extended(wire.FSYNC, wire.text(handle)))
                self.session.forget(wire.CLOSE, wire.text(handle))

        return sync

    def _not_named(self, refused: Refused) -> BackendError:
        room = self._place.room(self.session)
        return not_written(refused, self._plan.name, room, 1)

    def _finish_file(self) -> None:
        """Have everything on the server's disk, and the file closed."""
        if self._handle is None:
            return  # by a commit that was refused
        handle = self._handle
        if self._under_way:
            last = self._send_last(handle)
        else:  # a small value goes in one piece with what follows it
            with self.session.together():
                last = self._send_last(handle)
        self._acknowledge_all()
        self._handle = None
        try:
            for request in last:
                self.session.done(request)
            self._ahead.end()
        except Refused as error:
            raise self._fail(error, 1) from error

    def _send_last(self, handle: bytes) -> list[Request]:
        self._flush()
        last = [self.session.extended(wire.FSYNC, handle)] if self._place.sync else []
        return [*last, self.session.send(wire.CLOSE, handle)]

    def _make_missing(self) -> None:
        """Make the folders that were missing; the file stays where it is until it is named."""
        if not self._missing:
            return
        parent = self._plan.name.rpartition("/")[0]
        self._place.tree.make_folders(self.session, [parent])
        self._missing.clear()
        if self._folder_handle is not None:
            self.session.forget(wire.CLOSE, wire.text(self._folder_handle))
            request = self._place.tree.open_folder(self.session, parent)
            self._folder_handle = handle_of(self.session, request)

    def mark(self) -> str:
        """As `Writer.mark`. The server has what it was sent in that order: what it works on for one
        file it does as if it had come one by one (draft-ietf-secsh-filexfer-02, 6.1)."""
        self._require_whole()
        if self._digest is not None:
            return super().mark()
        if self._hidden.startswith(PART):
            return write_token(self._plan, self._hidden)
        name = self._plan.name
        try:
            self._make_missing()
            parent, part = name.rpartition("/")[0], PART + secrets.token_hex(16)
            path = self._place.tree.path(parent).rstrip(b"/") + b"/" + part.encode()
            self.session.done(
                self.session.send(wire.RENAME, wire.text(self._hidden_path), wire.text(path))
            )
        except Refused as error:
            raise translate(error, name) from error
        self._folder, self._hidden = parent, part
        return write_token(self._plan, part)

    def leave(self) -> None:
        if self._seat is None or not self._hidden.startswith(PART):
            self.abort()
            return
        with suppress(BackendError):
            self._flush()
            if self._handle is not None:
                self.session.forget(wire.CLOSE, self._handle)
        self._end()

    def checkpoint(self) -> str:
        name = self._plan.name
        self._require_whole()
        self._finish_file()
        try:
            self._make_missing()
            self._hold_folder()
            parent, part = name.rpartition("/")[0], PART + secrets.token_hex(16)
            path = self._place.tree.path(parent).rstrip(b"/") + b"/" + part.encode()
            request = self.session.send(wire.RENAME, wire.text(self._hidden_path), wire.text(path))
            now = int(time.time())
            dated = self.session.send(wire.SETSTAT, wire.text(path), wire.times(now, now))
            synced: list[Request] = []
            self._syncing(synced)()
            self.session.done(request)
            self.session.wait(dated)
            for each in synced:
                self.session.done(each)
        except Refused as error:
            raise self._not_named(error) from error
        self._end()
        return write_token(self._plan, part)

    def abort(self) -> None:
        if self._seat is None:
            return
        session, path = self.session, wire.text(self._hidden_path)
        try:
            if self._handle is not None:
                session.forget(wire.CLOSE, self._handle)
            session.wait(session.send(wire.REMOVE, path))
        except BackendError:
            self._place.remove_later(self._hidden_path)
        self._end()

    def _end(self) -> None:
        self._ahead.drop()
        self._handle = None
        self._under_way.clear()
        if self._folder_handle is not None:
            self.session.forget(wire.CLOSE, wire.text(self._folder_handle))
            self._folder_handle = None
        seat, self._seat = self._seat, None
        if seat is not None:
            self._place.pool.give(seat)
