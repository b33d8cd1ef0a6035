"""What a file system's errno means in the kernel's error family."""

from __future__ import annotations

import errno

from .errors import (
    BackendConnectionError,
    BackendError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)

_NOT_FOUND = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV}
"""ENXIO and ENODEV are what opening a socket or a device without a driver says: no item either."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.EXDEV}
_LATER = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EINTR}
_LOST = {errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO}


def translate(error: OSError, name: str) -> BackendError:
    """Return the kernel's error for what a system call on `name` answered.

    A missing folder on the way is as good as a missing item; ELOOP is a symbolic link that is not
    to be followed; ESTALE and its like are what a mount says whose server is away.
    """
    text = f"{name}: {error.strerror or error}"
    code = error.errno
    if code in _NOT_FOUND:
        return ObjectNotFound(text)
    if code == errno.EEXIST:
        return ObjectExists(text)
    if code in _FULL:
        return StorageFull(text)
    if code in _DENIED:
        return PermissionDenied(text)
    if code in _LOST:
        return BackendConnectionError(text)
    return BackendError(text, retryable=code in _LATER)
