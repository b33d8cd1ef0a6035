"""Copying a file's content within the kernel: shared, copied, or at last read and written.

A file system that shares blocks between files (btrfs, XFS, bcachefs, NFS 4.2 in front of one) has
a copy made in no time and without room; what is later written into either of the two is its own.
Elsewhere the kernel copies, which spares the way through this process.
"""

from __future__ import annotations

import errno
import fcntl
import os

from .base import CHUNK

FICLONE = 0x40049409
"""`_IOW(0x94, 9, int)` of linux/fs.h, the same on all machines but MIPS, PowerPC and SPARC, where
it is no request that anything knows; see ioctl_ficlone(2)."""

_AT_ONCE = 64 << 20
"""Bytes asked of the kernel in one call, so that a signal need not wait for a whole file."""

_NOT_SHARED = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EINVAL,  # not of one block size, or one of the two is without checksums (btrfs)
    errno.EXDEV,
    errno.EPERM,
    errno.ETXTBSY,
}
_NOT_COPIED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EPERM}


def fill(target: int, source: int) -> int:
    """Give an empty file the content of another; return its size in bytes.

    Args:
        target: open for writing, at its beginning, and left at its end.
        source: open for reading; its position does not change.

    Raises:
        OSError: what went wrong; `target` holds any part of it then.
    """
    if share(target, source):
        return os.lseek(target, 0, os.SEEK_END)
    done = 0
    try:
        while count := os.copy_file_range(source, target, _AT_ONCE, offset_src=done):
            done += count
    except OSError as error:
        if error.errno not in _NOT_COPIED:
            raise
    # Some file systems (those of the kernel's own making) copy nothing and say it was all.
    while chunk := os.pread(source, CHUNK, done):
        view = memoryview(chunk)
        while view:
            count = os.write(target, view)
            done += count
            view = view[count:]
    return done


def share(target: int, source: int) -> bool:
    """Let a file have all blocks of another; return whether the file system does that.

    Raises:
        OSError: it does, and something went wrong.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_SHARED:
            return False
        raise
    return True


def shares(folder: int) -> bool:
    """Return whether files in a folder can share blocks, by trying it with two empty ones."""
    made: list[int] = []
    try:
        for _ in range(2):
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            made.append(os.open(".", flags, 0o600, dir_fd=folder))
        return share(*made)
    except OSError:
        return False
    finally:
        for fd in made:
            os.close(fd)
