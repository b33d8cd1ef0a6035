"""Whole files between this machine and a place.

Both ends are whole or absent: an item is committed once all of the file was read and the file is
still the one that was opened; a file gets its name once it is complete and synced. A file that is
replaced keeps its permission bits.

An upload that ends early, by Ctrl-C, a power failure or a line that broke, is carried on by the
next one of the same file to the same name, from what the place has by then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from backupgw.kvstore.backends.base import CHUNK, Backend, Reader, Writer
from backupgw.kvstore.backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectNotFound,
    PermissionDenied,
    UnsupportedOperation,
)
from backupgw.kvstore.layers.retry_schedule import Schedule, Trials

from .base import ProgressCallback
from .files_here import FileUnusable as FileUnusable
from .files_here import NewFile
from .files_here import file_error as file_error
from .journal import Entry, Journal, Source
from .pieces import Interrupted as Interrupted
from .pieces import Pieces

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most, unless the first pause is longer."""


LEAST_RESUMED = 8 << 20
"""Bytes from which on it is worth while to remember how far an upload came."""


@dataclass
class Transfers:
    """How files are moved.

    Attributes:
        attempts: how often an upload whose writer broke is begun, the first time included; each
            carries on where the place still has what the one before it sent.
        first_pause: seconds until the second attempt.
        part_size: bytes up to which a file goes by one request; None where there are no parts.
        journal: of uploads that were interrupted.
        stopping: set by who wants transfers to end soon.
        sync: whether a file that was fetched is synced before it gets its name.
        connections: that all downloads together have at most; a large file is fetched by several.
        piece: bytes that one connection fetches of a large file at a time.
    """

    attempts: int = 1
    first_pause: float = 1.0
    part_size: int | None = None
    journal: Journal = field(default_factory=Journal)
    stopping: threading.Event = field(default_factory=threading.Event)
    sync: bool = True
    connections: int = 1
    piece: int = 32 << 20
    schedule: Schedule = field(init=False)
    _connections: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            attempts=self.attempts,
            deadline=float("inf"),
            first=self.first_pause,
            longest=max(LONGEST_PAUSE, self.first_pause),
            sleep=self._sleep,
        )
        self.share(self.connections)

    def share(self, connections: int) -> None:
        """Have so many connections for all downloads together from now on; none is under way."""
        self.connections = connections
        self._connections = threading.BoundedSemaphore(connections)

    def _sleep(self, seconds: float) -> None:
        self.stopping.wait(seconds)

    def upload(
        self, place: Backend, path: Path, name: str, progress: ProgressCallback | None = None
    ) -> int:
        """Store a file as an item, and return its bytes.

        What the place has of it from an upload that was interrupted is not sent again.

        Raises:
            BeingUploaded: another process does that now.
            Interrupted: `stopping` was set; the next upload carries on.
            BackendError: the file cannot be read, changes meanwhile, or the place failed; nothing
                was stored.
        """
        trials = Trials(self.schedule)
        while True:
            try:
                return self._upload(place, path, name, progress or _nobody)
            except BackendError as error:
                trials.pause(error)

    def _upload(self, place: Backend, path: Path, name: str, tell: ProgressCallback) -> int:
        with _opened(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileUnusable(f"{path}: is no file")
            size = status.st_size
            least = self.part_size or LEAST_RESUMED
            if not place.capabilities.resumable_write or size <= least:
                self._whole(place, file, path, status, name, tell)
                return size
            with self.journal.uploading(name, Source.of(path, status)) as entry:
                self._carried_on(place, file, path, status, entry, tell)
        return size

    def _whole(
        self,
        place: Backend,
        file: FileIO,
        path: Path,
        status: os.stat_result,
        name: str,
        tell: ProgressCallback,
    ) -> None:
        size = status.st_size
        tell(0, size)
        writer = place.open_writer(name, size=size)
        try:
            for done in self._copied(file, writer, 0, size):
                tell(done, size)
            _check_unchanged(path, status, os.fstat(file.fileno()))
            writer.commit()
        except BaseException:
            writer.abort()
            raise

    def _carried_on(
        self,
        place: Backend,
        file: FileIO,
        path: Path,
        status: os.stat_result,
        entry: Entry,
        tell: ProgressCallback,
    ) -> None:
        size = status.st_size
        every = self.part_size or size
        writer = _writer(place, entry, size)
        try:
            offset = writer.offset
            file.seek(offset)
            tell(offset, size)
            _mark(writer, entry)
            marked = offset
            for done in self._copied(file, writer, offset, size):
                tell(done, size)
                if done - marked >= every:
                    _mark(writer, entry)
                    marked = done
            _check_unchanged(path, status, os.fstat(file.fileno()))
            writer.commit()
        except ContentMismatch:
            writer.abort()
            entry.forget()
            raise
        except BaseException as error:
            _suspend(writer, entry, error)
            raise
        entry.forget()

    def _copied(self, file: FileIO, writer: Writer, done: int, size: int) -> Iterator[int]:
        """Copy the rest of a file of `size` bytes; yield the bytes done after each piece."""
        buffer = memoryview(bytearray(min(CHUNK, max(1, size))))
        while count := file.readinto(buffer):
            if self.stopping.is_set():
                raise Interrupted("the transfer was ended")
            writer.write(buffer[:count])
            done += count
            yield done

    def download(
        self, place: Backend, name: str, path: Path, progress: ProgressCallback | None = None
    ) -> int:
        """Fetch an item into a file, and return its bytes.

        Raises:
            ObjectNotFound: there is no such item.
            BackendError: the place failed, or the file cannot be written; it is as it was.
        """
        tell = progress or _nobody
        with self._connections, _beginning(place, name, self.piece) as first:
            with NewFile(path, sync=self.sync) as new:
                tell(0, first.item_size)
                if first.remaining == first.item_size:
                    self._alone(name, first, new, tell)
                else:
                    pieces = Pieces(place, name, first, self.piece, new, self.stopping)
                    pieces.fetch(self._connections, tell)
            return first.item_size

    def _alone(self, name: str, reader: Reader, new: NewFile, tell: ProgressCallback) -> None:
        """Fetch an item by one connection."""
        done, size = 0, reader.item_size
        buffer = memoryview(bytearray(min(CHUNK, max(1, size))))
        while count := reader.read_into(buffer):
            if self.stopping.is_set():
                raise Interrupted("the transfer was ended")
            new.write_at(buffer[:count], done)
            done += count
            tell(done, size)
        if done != size:
            raise BackendError(f"{name}: {done} of {size} bytes came", retryable=True)


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


def _opened(path: Path) -> FileIO:
    try:
        return open(path, "rb", buffering=0, opener=_at_once)
    except OSError as error:
        raise file_error(error) from error


def _at_once(path: str, flags: int) -> int:
    """Open a file; a pipe too, for which nobody would ever write and which nothing could end."""
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:
        # Somebody has a lease on it, as Samba has for its clients: the kernel takes it back.
        return os.open(path, flags)


def _writer(place: Backend, entry: Entry, size: int) -> Writer:
    """Return a writer that carries an upload on, or begins it."""
    for old in filter(None, (entry.stale,)):
        _give_up(place, old)
    if entry.token is not None:
        try:
            return place.resume_writer(entry.token)
        except (ObjectNotFound, UnsupportedOperation, ValueError):
            entry.forget()  # the place has nothing of it any more, or is another one
    return place.open_writer(entry.name, size=size)


def _give_up(place: Backend, token: str) -> None:
    with contextlib.suppress(BackendError, ValueError):  # the place's own upkeep finds it later
        place.abort_writer(token)


def _mark(writer: Writer, entry: Entry) -> None:
    """Note how far it is, where the place can tell while the write goes on."""
    with contextlib.suppress(UnsupportedOperation):
        entry.save(writer.mark())


def _suspend(writer: Writer, entry: Entry, error: BaseException) -> None:
    """End a write that did not succeed, so that it can be carried on where that makes sense."""
    # Where there is no room, what is half there takes some of it.
    lasting = isinstance(error, BackendError) and not (
        error.retryable or isinstance(error, Interrupted | PermissionDenied)
    )
    if lasting:
        writer.abort()
        entry.forget()
        return
    try:
        try:
            entry.save(writer.mark())
            writer.leave()
        except UnsupportedOperation:
            entry.save(writer.checkpoint())
    except BackendError:
        # The place cannot even be told. What was marked before stays.
        writer.leave()


def _check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ContentMismatch(f"{path}: changed while it was read; nothing was stored")


def _beginning(place: Backend, name: str, piece: int) -> Reader:
    """Start reading an item: all, or the first piece where others can be fetched beside it."""
    if place.capabilities.ranges:
        reader = place.open_reader(name, size=piece)
        if reader.item_size <= piece or reader.version is not None:
            return reader
        reader.close()  # nothing would tell that the pieces are of one value
    return place.open_reader(name)
