"""A look whether a name is new, before a small item is counted: a part of each upload.

`os.stat` lets go of the interpreter's lock, which other threads take at once, and raises an error
where nothing has the name, as is nearly always so. On a disk of this machine the answer is nearly
always in memory, since the folder was opened just now and gets its new name in a moment; so there
the lock is kept, and at worst one read of the disk keeps the other threads waiting. A file system
on a network may never answer; there, and wherever we do not know, the lock is let go of.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

_NOT_FOLLOWED = 0x100  # AT_SYMLINK_NOFOLLOW


def _statx_of(library: ctypes.CDLL) -> Callable[[int, bytes, int, int, int], int] | None:
    statx = getattr(library, "statx", None)  # old libraries have none
    if statx is not None:
        statx.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_void_p,
        )
    return statx


_libc = ctypes.CDLL(None, use_errno=True)
_waiting = _statx_of(_libc)
_at_once = _statx_of(ctypes.PyDLL(None, use_errno=True))

_unread = ctypes.create_string_buffer(256)
"""A `struct statx`, which all threads may fill at the same time: nobody reads it."""
_UNREAD_AT = ctypes.addressof(_unread)


def is_new(folder: int, segment: str, *, local: bool) -> bool:
    """Whether nothing in an open folder has a name, for sure.

    Args:
        local: the folder `is_local`.
    """
    statx = _at_once if local else _waiting
    if statx is None:
        return _is_new_to_stat(folder, segment)
    if statx(folder, segment.encode(), _NOT_FOLLOWED, 0, _UNREAD_AT) == 0:
        return False
    code = ctypes.get_errno()
    if code == errno.ENOENT:
        return True
    # What old filters of system calls say to a call that they do not know.
    unknown = code in (errno.ENOSYS, errno.EPERM)
    return unknown and _is_new_to_stat(folder, segment)


def _is_new_to_stat(folder: int, segment: str) -> bool:
    """As `is_new`, where there is no statx, or a filter of system calls does not know it."""
    try:
        os.stat(segment, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
