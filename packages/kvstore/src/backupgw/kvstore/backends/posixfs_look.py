"""A look at a small item before it is counted, a part of each upload: whether its name is new, or
which file it is, so that it can be told from another one that has the name.

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
import struct

_arguments = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)

# The call with the least to say that follows no link: what is there and none is EINVAL.
_waiting = ctypes.CDLL(None, use_errno=True).readlinkat
_at_once = ctypes.PyDLL(None, use_errno=True).readlinkat
_waiting.argtypes = _at_once.argtypes = _arguments
_waiting.restype = _at_once.restype = ctypes.c_ssize_t

_unread = ctypes.create_string_buffer(1)
"""Where a link would be read to, by all threads at the same time: nobody looks."""
_UNREAD_AT = ctypes.addressof(_unread)
_get_errno, _NOTHING = ctypes.get_errno, errno.ENOENT


def is_new(folder: int, segment: str, *, local: bool) -> bool:
    """Whether nothing in an open folder has a name, for sure.

    Args:
        local: the folder `is_local`.
    """
    look = _at_once if local else _waiting
    return look(folder, segment.encode(), _UNREAD_AT, 1) < 0 and _get_errno() == _NOTHING


_LARGEST = (1 << 63) - 1
"""Number of a file that a database takes."""

# The number of a file is the second word of struct stat wherever words have 64 bits.
_Status = ctypes.c_char * 256
_words = struct.Struct("=QQ").unpack_from
_fstat = getattr(ctypes.PyDLL(None), "fstat", None)  # not in the C library before glibc 2.33


def _at_once_number(fd: int) -> int:
    status = _Status()
    if _fstat is None or _fstat(fd, status) != 0:
        return 0
    number: int = _words(status)[1]
    return number if number <= _LARGEST else 0


def _number(fd: int) -> int:
    number = os.fstat(fd).st_ino
    return number if number <= _LARGEST else 0


def _words_are_right() -> bool:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status, found = _Status(), os.fstat(fd)
        done = _fstat is not None and _fstat(fd, status) == 0
        return done and _words(status) == (found.st_dev, found.st_ino)
    finally:
        os.close(fd)


if _fstat is not None:
    _fstat.argtypes = (ctypes.c_int, ctypes.c_void_p)
    _fstat.restype = ctypes.c_int

file_number = _at_once_number if _words_are_right() else _number
"""Return the number of an open file on a disk of this machine, 0 where it is too large for us."""
