"""The error family of the kernel: nothing else leaves a backend.

The names up to `ReadRangeError` are borgstore 0.7's; the others are ours. A backend raises the
narrowest that fits, with the original exception as `__cause__`.
"""

from __future__ import annotations


class BackendError(Exception):
    """Base of everything a backend raises.

    Attributes:
        retryable: the same call may succeed later without anybody changing anything.
        retry_after: seconds to wait first, where the place said so.
    """

    retryable: bool = False
    retry_after: float | None = None

    def __init__(
        self, *args: object, retryable: bool | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(*args)
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after


class BackendConnectionError(BackendError):
    """The place could not be reached, or the connection broke."""

    retryable = True


class BackendURLInvalid(BackendError):
    """No backend understands the URL."""


class NoBackendGiven(BackendError):
    """Neither a URL nor a backend object was given."""


class BackendAlreadyExists(BackendError):
    """create() found something where the new place was to be."""


class BackendDoesNotExist(BackendError):
    """The place does not exist, or the library that reaches it is not installed."""


class BackendMustBeOpen(BackendError):
    """The operation needs an open backend."""


class BackendMustNotBeOpen(BackendError):
    """The operation needs a closed backend."""


class ObjectNotFound(BackendError):
    """There is no item of that name."""


class PermissionDenied(BackendError):
    """The place, or a layer in front of it, does not allow the operation."""


class QuotaExceeded(BackendError):
    """A limit that somebody set would be passed; nothing was written."""


class ReadRangeError(BackendError):
    """An item is shorter than the range that was asked of it."""


class ObjectExists(BackendError):
    """A write with if_absent found an item of that name; it was left alone.

    Attributes:
        mended: not quite: named by the hash of its value, it was damaged, and is whole now.
    """

    mended: bool = False


class StorageFull(QuotaExceeded):
    """The place itself has no room left (ENOSPC, EDQUOT); nothing was written."""


class ContentMismatch(BackendError):
    """The bytes written do not have the expected hash or size; nothing was stored."""


class UnsupportedOperation(BackendError):
    """The place cannot do this; its capabilities say so."""


class NameCollision(BackendError):
    """An item whose name differs only in case exists on a place that ignores case."""


class NameTooLong(BackendError):
    """The place, or a layer in front of it, has no room for a name of that length."""
