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
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from backupgw.kvstore.backends.base import CHUNK, Backend, Writer
from backupgw.kvstore.backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
    UnsupportedOperation,
)
from backupgw.kvstore.layers.retry_schedule import Schedule, Trials

from .base import ProgressCallback
from .journal import Entry, Journal, Source

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most, unless the first pause is longer."""


FLUSHED_AHEAD = 32 << 20
"""Bytes of a file that is fetched after which the disk is set to work."""

LEAST_RESUMED = 8 << 20
"""Bytes from which on it is worth while to remember how far an upload came."""


class FileUnusable(BackendError):
    """A file of this machine cannot be read or written."""


def file_error(error: OSError) -> BackendError:
    """Return what the operating system says of a file as one of the kernel's errors."""
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    kind = StorageFull if error.errno in _FULL else FileUnusable
    made: BackendError = kind(text)
    made.__cause__ = error
    return made


_FULL = {28, 122}
"""ENOSPC and EDQUOT."""


class Interrupted(BackendError):
    """Somebody ended the transfer."""


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
        sync: whether a file that was fetched is synced before it gets its name; who fetches many
            may sync once, at the end.
    """

    attempts: int = 1
    first_pause: float = 1.0
    part_size: int | None = None
    journal: Journal = field(default_factory=Journal)
    stopping: threading.Event = field(default_factory=threading.Event)
    sync: bool = True
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            attempts=self.attempts,
            deadline=float("inf"),
            first=self.first_pause,
            longest=max(LONGEST_PAUSE, self.first_pause),
            sleep=self._sleep,
        )

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
        with place.open_reader(name) as reader, NewFile(path, sync=self.sync) as new:
            size = reader.item_size
            tell(0, size)
            done = 0
            while chunk := reader.read(CHUNK):
                if self.stopping.is_set():
                    raise Interrupted("the transfer was ended")
                new.write(chunk)
                done += len(chunk)
                tell(done, size)
            if done != size:
                raise BackendError(f"{name}: {done} of {size} bytes came", retryable=True)
        return size


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


def _opened(path: Path) -> FileIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise file_error(error) from error


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


class NewFile:
    """A file that has its name when its block ends well, and is not there otherwise.

    Args:
        sync: it is on the disk by then.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path
        self._sync = sync
        self._temporary = path.with_name(f".{path.name[:180]}.{secrets.token_hex(6)}.part")
        self._fd = -1
        self._ahead = 0
        self._flushing: threading.Thread | None = None
        self._failed: OSError | None = None

    def _flush_ahead(self, size: int) -> None:
        """Have the disk work while more comes, so that the end need not wait for all of it."""
        self._ahead += size
        if self._ahead < FLUSHED_AHEAD or (self._flushing and self._flushing.is_alive()):
            return
        self._ahead = 0
        self._flushing = threading.Thread(target=self._flush, name="flush", daemon=True)
        self._flushing.start()

    def _flush(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._failed = error  # only one sync is told of it

    def __enter__(self) -> NewFile:
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
        except OSError:
            mode = None
        if self._path.is_dir():
            raise FileUnusable(f"{self._path}: is a folder; name the file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # What comes from a backup is for its owner until somebody says more.
            self._fd = os.open(self._temporary, flags, 0o600)
            if mode is not None:
                os.fchmod(self._fd, mode)
        except OSError as error:
            raise file_error(error) from error
        return self

    def write(self, data: bytes) -> None:
        """Append. Raises BackendError."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._error(error) from error
        if self._sync:
            self._flush_ahead(len(data))

    def _error(self, error: OSError) -> BackendError:
        error.filename = error.filename or str(self._path)
        return file_error(error)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._flushing is not None:
            self._flushing.join()
        fd, self._fd = self._fd, -1
        try:
            if kind is None and self._sync:
                if self._failed is not None:
                    raise self._failed
                os.fsync(fd)
            os.close(fd)
            fd = -1
            if kind is None:
                os.replace(self._temporary, self._path)
                if self._sync:
                    _sync_folder(self._path.parent)
        except OSError as failure:
            raise self._error(failure) from failure
        finally:
            if fd >= 0:
                os.close(fd)
            self._temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
