"""Files of this machine: their errors, and a new one that is whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from pathlib import Path

from backupgw.kvstore.backends.errors import BackendError, StorageFull

FLUSHED_AHEAD = 32 << 20
"""Bytes of a file that is fetched after which the disk is set to work."""


class FileUnusable(BackendError):
    """A file of this machine cannot be read or written."""


def file_error(error: OSError) -> BackendError:
    """Return what the operating system says of a file as one of the kernel's errors."""
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    kind = StorageFull if error.errno in _FULL else FileUnusable
    made: BackendError = kind(text)
    made.__cause__ = error
    return made


_FULL = {errno.ENOSPC, errno.EDQUOT}


class NewFile:
    """A file that has its name when its block ends well, and is not there otherwise.

    Args:
        sync: it is on the disk by then, with the folders that were made for it.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path
        self._sync = sync
        folder, name = os.path.split(path)
        self._temporary = os.path.join(folder, f".{name[:180]}.{secrets.token_hex(6)}.part")
        self._fd = -1
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._ahead = 0
        self._there = True
        """Whether the temporary file may be there."""
        self._flushing: threading.Thread | None = None
        self._failed: OSError | None = None
        self._changed: list[Path] = [path.parent]
        """Folders that get a name with the file."""

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
        mode = None
        with contextlib.suppress(OSError):
            there = os.stat(self._path).st_mode
            if stat.S_ISDIR(there):
                raise FileUnusable(f"{self._path}: is a folder; name the file")
            mode = stat.S_IMODE(there)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            # What comes from a backup is for its owner until somebody says more.
            try:
                self._fd = os.open(self._temporary, flags, 0o600)
            except FileNotFoundError:
                self._make_folders()
                self._fd = os.open(self._temporary, flags, 0o600)
            if mode is not None:
                os.fchmod(self._fd, mode)
        except OSError as error:
            raise file_error(error) from error
        return self

    def _make_folders(self) -> None:
        folder = self._path.parent.parent
        self._changed.append(folder)  # though another thread may have made the lowest just now
        while not folder.exists():
            folder = folder.parent
            self._changed.append(folder)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write bytes where they belong; by several threads at a time. Raises BackendError."""
        view = memoryview(data)
        try:
            # File systems let one writer at a file; here the others sleep, there they would spin.
            with self._writing:
                while view:
                    count = os.pwrite(self._fd, view, offset)
                    view, offset = view[count:], offset + count
        except OSError as error:
            raise self._error(error) from error
        if self._sync:
            with self._lock:
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
                self._there = False
                if self._sync:
                    for folder in self._changed:
                        _sync_folder(folder)
        except OSError as failure:
            raise self._error(failure) from failure
        finally:
            if fd >= 0:
                os.close(fd)
            if self._there:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._temporary)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
