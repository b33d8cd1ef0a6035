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
