"""An open place on a server, and how items in it are opened."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import sftp_answers as answers
from . import sftp_wire as wire
from .errors import BackendError, ObjectNotFound
from .plan import Plan
from .posixfs_leftovers import PART, PART_AGE, TEMPORARY
from .sftp_answers import Entry, Refused
from .sftp_errors import Room, not_written, room_of, translate
from .sftp_naming import Features
from .sftp_pool import Pool
from .sftp_reader import SftpReader
from .sftp_tree import (
    Tree,
    attributes_of,
    handle_of,
    is_folder,
    is_item,
    is_link,
    link_refused,
    new_hidden,
)
from .sftp_wire import Session

_CLOCK_BELIEVED = 3600.0

_LOOKS = 3
"""How often a folder may come to be while a file is made in it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A file that is open for writing.

    Attributes:
        folder: in which it lies: the item's, or the nearest above that exists.
        hidden: its name there.
        handle: of the file.
        folder_handle: of the folder, where it can be synced by one.
        missing: the item's folders that are to be made, outermost first.
        size: bytes it holds already.
    """

    folder: str
    hidden: str
    handle: bytes
    folder_handle: bytes | None
    missing: tuple[str, ...] = ()
    size: int = 0


class OpenFile(NamedTuple):
    """An item that is open for reading: its handle, its size in bytes, and what reads it from the
    size that it was expected to have."""

    handle: bytes
    size: int
    early: SftpReader | None

    def close(self, session: Session) -> None:
        """Have it closed, unless that was asked for already."""
        _close(session, self.handle, self.early)


class Span(NamedTuple):
    """What is to be read; see `Backend.open_reader`."""

    name: str
    offset: int = 0
    size: int | None = None


def _close(session: Session, handle: bytes, reader: SftpReader | None) -> None:
    if reader is None or not reader.released:
        session.forget(wire.CLOSE, wire.text(handle))


FromSize = Callable[[bytes, int], SftpReader]
"""Begins to read an open file: its handle, its size in bytes."""


@dataclass
class Place:
    """What an open backend has.

    Attributes:
        sync: files and folders are to be synced before anything is acknowledged, and can be.
        file_mode: permission bits of new files.
    """

    pool: Pool
    tree: Tree
    features: Features
    sync: bool
    file_mode: int
    _clock: tuple[float, float] | None = field(default=None, repr=False)

    # -- opening items

    def begin_read(self, session: Session, name: str) -> OpenFile:
        """Open an item. Two round trips: the first finds out what it is as well.

        Raises:
            ObjectNotFound: there is none, or it is a folder or something else.
            PermissionDenied: it is a symbolic link, or one is on the way.
        """
        (found,) = self._in_step(session, [(name, None)])
        return found

    def open_readers(self, session: Session, spans: Sequence[Span]) -> list[SftpReader]:
        """Open several items for reading, in as many round trips as one takes. Their first bytes
        come with the second one, if the items are still as large as in the first.

        Raises as `begin_read` does; then none is open.
        """

        def reader(span: Span) -> FromSize:
            return lambda handle, size: SftpReader(
                session, handle, span.name, size, span.offset, span.size, close_soon=True
            )

        files = self._in_step(session, [(span.name, reader(span)) for span in spans])
        readers: list[SftpReader] = []
        for file, span in zip(files, spans, strict=True):
            early = file.early
            if early is not None and early.item_size == file.size:
                readers.append(early)
            elif early is None or not early.released:
                readers.append(reader(span)(file.handle, file.size))
            else:  # it was exchanged between the two round trips
                try:
                    again = self.begin_read(session, span.name)
                except BackendError:
                    for each in readers:
                        each.close()
                    for left in files[len(readers) + 1 :]:
                        left.close(session)
                    raise
                readers.append(
                    SftpReader(session, again.handle, span.name, again.size, span.offset, span.size)
                )
        return readers

    def _in_step(
        self, session: Session, wanted: Sequence[tuple[str, FromSize | None]]
    ) -> list[OpenFile]:
        going = [self._opening(session, name, early) for name, early in wanted]
        opened: list[OpenFile] = []
        failed: BackendError | None = None
        while going:  # each sends before the answers to any are waited for
            further = []
            for step in going:
                try:
                    next(step)
                except StopIteration as end:
                    opened.append(end.value)
                except BackendError as error:
                    failed = failed or error
                else:
                    further.append(step)
            going = further
        if failed is not None:
            for file in opened:
                file.close(session)
            raise failed
        return opened

    def _opening(
        self, session: Session, name: str, early: FromSize | None
    ) -> Generator[None, None, OpenFile]:
        """Open an item, with a `yield` wherever an answer is about to be waited for."""
        tree, path, parent = self.tree, wire.text(self.tree.path(name)), name.rpartition("/")[0]
        reading = wire.number(wire.FOR_READING)
        with session.together():
            asked = tree.ask_inside(session, parent)
            looked = session.send(wire.LSTAT, path)
            opened = session.send(wire.OPEN, path, reading, wire.NO_ATTRIBUTES)
        yield
        found = attributes_of(session, looked, name)
        try:
            handle = answers.string(session.result(opened, wire.HANDLE))
        except Refused as error:
            tree.confirm_inside(session, parent, asked)
            if found is not None and is_link(found):
                raise link_refused(name) from error
            if found is None or not is_item(found):
                raise ObjectNotFound(f"{name} is not an item") from error
            raise translate(error, name) from error
        reader: SftpReader | None = None
        try:
            tree.confirm_inside(session, parent, asked)
            if found is not None and is_link(found):
                raise link_refused(name)
            expected = found.size if found is not None else None
            with session.together():
                status = session.send(wire.FSTAT, wire.text(handle))
                reader = early(handle, expected) if early and expected is not None else None
            yield
            file = answers.attributes(session.result(status, wire.ATTRS))
            if not is_item(file) or file.size is None:
                raise ObjectNotFound(f"{name} is not an item")
        except Refused as error:
            _close(session, handle, reader)
            raise translate(error, name) from error
        except BackendError:
            _close(session, handle, reader)
            raise
        return OpenFile(handle, file.size, reader)

    def begin_write(self, session: Session, name: str) -> Begun:
        """Make a file under a hidden name in the item's folder, or in the nearest above it."""
        folder = name.rpartition("/")[0]
        missing: list[str] = []
        looks = 0
        while True:
            hidden = new_hidden()
            path = wire.text(self.tree.path(f"{folder}/{hidden}" if folder else hidden))
            flags = wire.FOR_WRITING | wire.FOR_READING | wire.CREATE | wire.EXCLUSIVE
            mode = wire.permissions(self.file_mode)
            with session.together():
                asked = self.tree.ask_inside(session, folder)
                opened = session.send(wire.OPEN, path, wire.number(flags), mode)
                above = self.tree.open_folder(session, folder) if self.sync else None
            try:
                handle = answers.string(session.result(opened, wire.HANDLE))
                break
            except Refused as error:
                if above is not None and (wasted := handle_of(session, above)) is not None:
                    session.forget(wire.CLOSE, wire.text(wasted))
                found = self.tree.look(session, [folder])[folder] if folder else None
                if found is not None and is_link(found):
                    raise link_refused(folder) from error
                if found is not None and not is_folder(found):
                    raise BackendError(f"{folder} is an item, not a folder") from error
                if error.code == wire.NO_SUCH_FILE and found is not None and looks < _LOOKS:
                    looks += 1
                    continue  # somebody made it between the two requests
                if error.code != wire.NO_SUCH_FILE or found is not None or not folder:
                    raise not_written(error, name, self.room(session), 1) from error
            folder, _, segment = folder.rpartition("/")
            missing.insert(0, segment)
        folder_handle = handle_of(session, above) if above is not None else None
        try:
            self.tree.confirm_inside(session, folder, asked)
            if self.file_mode & 0o077:  # exactly these, whatever the server's umask
                session.wait(session.send(wire.FSETSTAT, wire.text(handle), mode))
        except BackendError:
            session.forget(wire.CLOSE, wire.text(handle))
            session.forget(wire.REMOVE, path)
            if folder_handle is not None:
                session.forget(wire.CLOSE, wire.text(folder_handle))
            raise
        return Begun(folder, hidden, handle, folder_handle, tuple(missing))

    def begin_again(self, session: Session, plan: Plan, part: str) -> Begun:
        """Open a checkpoint; of several that try, the one who renames it carries on.

        Raises:
            ObjectNotFound: it is gone, or another one carries on.
        """
        tree, folder, hidden = self.tree, plan.name.rpartition("/")[0], new_hidden()
        tree.require_inside(session, folder)
        path = wire.text(tree.path(f"{folder}/{hidden}" if folder else hidden))
        kept = wire.text(tree.path(f"{folder}/{part}" if folder else part))
        try:
            session.done(session.send(wire.RENAME, kept, path))
            flags = wire.number(wire.FOR_WRITING | wire.FOR_READING)
            opened = session.send(wire.OPEN, path, flags, wire.NO_ATTRIBUTES)
            above = tree.open_folder(session, folder) if self.sync else None
            handle = answers.string(session.result(opened, wire.HANDLE))
            status = answers.attributes(
                session.result(session.send(wire.FSTAT, wire.text(handle)), wire.ATTRS)
            )
        except Refused as error:
            raise translate(error, f"checkpoint of {plan.name}") from error
        folder_handle = handle_of(session, above) if above is not None else None
        return Begun(folder, hidden, handle, folder_handle, size=status.size or 0)

    # -- its disk

    def room(self, session: Session) -> Room | None:
        """Return what the file system has and has left; None where the server does not tell."""
        if not self.features.room:
            return None
        try:
            request = session.extended(wire.STATVFS, wire.text(self.tree.root))
            return room_of(session.result(request, wire.EXTENDED_REPLY))
        except (Refused, struct.error):
            return None

    def remove_later(self, path: bytes) -> None:
        """Remove a file whose session broke, if another one is open; otherwise `reap` finds it."""
        seat = self.pool.take_living()
        if seat is None:
            return
        with contextlib.suppress(BackendError):
            seat.session.wait(seat.session.send(wire.REMOVE, wire.text(path)))
        self.pool.give(seat)

    # -- leftovers

    def reap_entry(self, session: Session, folder: str, entry: Entry, older_than: float) -> int:
        """Remove the temporary file of a writer that died; return how many were removed.

        Its age is what the server's own clock says; this machine's may be wrong.
        """
        name, mtime = entry.name.decode(errors="replace"), entry.attributes.mtime
        if name.startswith(PART):
            older_than = max(older_than, PART_AGE)
        elif not name.startswith(TEMPORARY):
            return 0  # quarantine, trash: not ours to clear
        if mtime is None or not is_item(entry.attributes) or time.time() - mtime < older_than - 1:
            return 0
        now = self._server_time(session)
        if now is None or now - mtime < older_than:
            return 0
        try:
            path = self.tree.path(f"{folder}/{name}" if folder else name)
            session.done(session.send(wire.REMOVE, wire.text(path)))
        except Refused:
            return 0  # vanished, or not ours to remove
        return 1

    def _server_time(self, session: Session) -> float | None:
        """Return the server's time by a file made for that; None where it lets none be made."""
        if self._clock is not None and time.monotonic() - self._clock[0] < _CLOCK_BELIEVED:
            return time.time() + self._clock[1]
        path = wire.text(self.tree.path(new_hidden()))
        flags = wire.number(wire.FOR_WRITING | wire.CREATE | wire.EXCLUSIVE)
        handle = handle_of(session, session.send(wire.OPEN, path, flags, wire.permissions(0o600)))
        if handle is None:
            return None
        looked = session.send(wire.FSTAT, wire.text(handle))
        session.forget(wire.CLOSE, wire.text(handle))
        removed = session.send(wire.REMOVE, path)
        try:
            made = answers.attributes(session.result(looked, wire.ATTRS)).mtime
            session.wait(removed)
        except Refused:
            return None
        if made is None:
            return None
        self._clock = time.monotonic(), made + 1 - time.time()  # it counts whole seconds
        return time.time() + self._clock[1]
