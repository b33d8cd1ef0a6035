"""Reading a small file that an operator named: never hangs, never reads without end."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple


class SmallFile(NamedTuple):
    """A file's content with its facts from before and after the reading."""

    content: bytes
    before: os.stat_result
    after: os.stat_result


def read_small_file(path: str | os.PathLike[str], limit: int) -> SmallFile:
    """Read a regular file of at most `limit` bytes; /dev/null reads as an empty one.

    Raises:
        OSError: it cannot be read, is no regular file or too large; `strerror` says which.
    """
    # O_NONBLOCK: a named pipe that nobody writes to must be refused, not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) and not os.path.samestat(before, os.stat(os.devnull)):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        parts = []
        left = limit + 1
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        if not left:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", os.fspath(path))
        return SmallFile(b"".join(parts), before, os.fstat(descriptor))
    finally:
        os.close(descriptor)
