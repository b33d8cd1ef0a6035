"""Reading a local file, and what is told of one."""

from __future__ import annotations

import os
import stat

from .base import FileSpan, ItemInfo, Reader
from .errors import BackendError, ObjectNotFound
from .posixfs_errors import translate


class PosixReader(Reader):
    """Reads from a descriptor by position; closed by whoever opened the reader."""

    __slots__ = ("_fd", "_name", "_position", "item_size", "remaining")

    def __init__(self, fd: int, name: str, offset: int, size: int | None) -> None:
        """Take over `fd`. Raises ObjectNotFound, with `fd` closed, if it is no regular file."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise ObjectNotFound(f"{name} is not an item")
        self._fd = fd
        self._name = name
        self.item_size = total = status.st_size
        self._position = max(total + offset, 0) if offset < 0 else min(offset, total)
        rest = total - self._position
        self.remaining = rest if size is None else max(min(size, rest), 0)

    @property
    def version(self) -> str:
        # The descriptor keeps the inode from being used again.
        status = os.fstat(self._fd)
        return f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"

    def read(self, size: int) -> bytes:
        want = min(size, self.remaining)
        if want <= 0:
            return b""
        try:
            data = os.pread(self._fd, want, self._position)
        except OSError as error:
            raise translate(error, self._name) from error
        if not data:
            raise BackendError(f"{self._name} was cut short while it was read")
        self._position += len(data)
        self.remaining -= len(data)
        return data

    def read_nowait(self, size: int) -> bytes | bytearray | None:
        want = min(size, self.remaining)
        if want <= 0:
            return b""
        buffer = bytearray(want)
        try:
            got = os.preadv(self._fd, (buffer,), self._position, os.RWF_NOWAIT)
        except OSError:
            return None  # not cached, or the file system cannot tell: read() waits for it
        if got <= 0:
            return None
        if got < want:
            del buffer[got:]
        self._position += got
        self.remaining -= got
        return buffer

    def file_span(self) -> FileSpan:
        return FileSpan(self._fd, self._position, self.remaining)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def load(fd: int, name: str, offset: int, size: int | None) -> bytes:
    """Return what a `PosixReader` would read, in one piece; closes `fd`.

    Raises:
        ObjectNotFound: it is no regular file.
        BackendError: it could not be read to its end.
    """
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFound(f"{name} is not an item")
        total = status.st_size
        position = max(total + offset, 0) if offset < 0 else offset
        want = max(total - position, 0)
        if size is not None:
            want = max(min(size, want), 0)
        data = os.pread(fd, want, position) if want else b""
        if len(data) < want:  # a signal, or Linux's 2 GiB at a time
            data += _rest(fd, name, position + len(data), want - len(data))
        return data
    except OSError as error:
        raise translate(error, name) from error
    finally:
        os.close(fd)


def _rest(fd: int, name: str, position: int, want: int) -> bytes:
    parts = []
    while want:
        part = os.pread(fd, want, position)
        if not part:
            raise BackendError(f"{name} was cut short while it was read")
        parts.append(part)
        position += len(part)
        want -= len(part)
    return b"".join(parts)


def item_info(name: str, status: os.stat_result) -> ItemInfo | None:
    """Make the record of a file or folder; None for what is neither."""
    if stat.S_ISREG(status.st_mode):
        return ItemInfo(name, True, status.st_size, False, status.st_atime, status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        return ItemInfo(name, True, 0, True, status.st_atime, status.st_mtime)
    return None
