"""Whole files between this machine and a place.

Both ends are whole or absent: an item is committed once all of the file was read and the file is
still the one that was opened; a file gets its name once it is complete and synced. A file that is
replaced keeps its permission bits.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from backupgw.kvstore.backends.base import CHUNK, Backend, Writer
from backupgw.kvstore.backends.errors import BackendError, ContentMismatch, StorageFull
from backupgw.kvstore.layers.retry_schedule import Schedule, Trials

from .base import ProgressCallback

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most, unless the first pause is longer."""


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


@dataclass
class Transfers:
    """How files are moved.

    Attributes:
        attempts: how often an upload whose writer broke is begun, the first time included.
        first_pause: seconds until the second attempt.
    """

    attempts: int = 1
    first_pause: float = 1.0
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            attempts=self.attempts,
            deadline=float("inf"),
            first=self.first_pause,
            longest=max(LONGEST_PAUSE, self.first_pause),
        )

    def upload(
        self, place: Backend, path: Path, name: str, progress: ProgressCallback | None = None
    ) -> int:
        """Store a file as an item, and return its bytes.

        Raises:
            BackendError: the file cannot be read, changes meanwhile, or the place failed; nothing
                was stored.
        """
        trials = Trials(self.schedule)
        while True:
            try:
                return self._upload(place, path, name, progress)
            except BackendError as error:
                trials.pause(error)

    def _upload(
        self, place: Backend, path: Path, name: str, progress: ProgressCallback | None
    ) -> int:
        with _opened(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileUnusable(f"{path}: is no file")
            size = status.st_size
            tell = progress or _nobody
            tell(0, size)
            writer = place.open_writer(name, size=size)
            try:
                _copy(file, writer, lambda done: tell(done, size))
                _check_unchanged(path, status, os.fstat(file.fileno()))
                writer.commit()
            except BaseException:
                writer.abort()
                raise
            if size == 0:
                tell(0, 0)
        return size

    def download(
        self, place: Backend, name: str, path: Path, progress: ProgressCallback | None = None
    ) -> int:
        """Fetch an item into a file, and return its bytes.

        Raises:
            ObjectNotFound: there is no such item.
            BackendError: the place failed, or the file cannot be written; it is as it was.
        """
        tell = progress or _nobody
        with place.open_reader(name) as reader, NewFile(path) as new:
            size = reader.item_size
            tell(0, size)
            done = 0
            while chunk := reader.read(CHUNK):
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


def _copy(file: FileIO, writer: Writer, tell: Callable[[int], None]) -> None:
    buffer = memoryview(bytearray(CHUNK))
    done = 0
    while count := file.readinto(buffer):
        writer.write(buffer[:count])
        done += count
        tell(done)


def _check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ContentMismatch(f"{path}: changed while it was read; nothing was stored")


class NewFile:
    """A file that has its name, synced, when its block ends well, and is not there otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name[:180]}.{secrets.token_hex(6)}.part")
        self._fd = -1

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

    def _error(self, error: OSError) -> BackendError:
        error.filename = error.filename or str(self._path)
        return file_error(error)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        fd, self._fd = self._fd, -1
        try:
            if kind is None:
                os.fsync(fd)
            os.close(fd)
            fd = -1
            if kind is None:
                os.replace(self._temporary, self._path)
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
