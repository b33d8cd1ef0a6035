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


def item_info(name: str, status: os.stat_result) -> ItemInfo | None:
    """Make the record of a file or folder; None for what is neither."""
    if stat.S_ISREG(status.st_mode):
        return ItemInfo(name, True, status.st_size, False, status.st_atime, status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        return ItemInfo(name, True, 0, True, status.st_atime, status.st_mtime)
    return None
