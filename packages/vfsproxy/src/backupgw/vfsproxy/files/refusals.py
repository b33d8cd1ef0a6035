"""Why a file operation is refused, in HTTP's words: what the edge turns into problem+json."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ContentMismatch,
    NameCollision,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    ReadRangeError,
    StorageFull,
    UnsupportedOperation,
)
from backupgw.kvstore.names import InvalidName

logger = logging.getLogger(__name__)


class FileRefusal(Exception):
    """An answer other than success.

    Args:
        status: of HTTP.
        code: what programs tell refusals apart by, such as "file-exists".
        detail: one line for a person: what is wrong and what to do.
        headers: to be sent with it.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def exists(name: str) -> FileRefusal:
    """Say that something has the name already."""
    return FileRefusal(
        409, "file-exists", f"{name!r} exists already; ask to overwrite it, or take another name"
    )


def missing(name: str) -> FileRefusal:
    """Say that nothing has the name."""
    return FileRefusal(404, "file-not-found", f"there is no {name!r} in this folder")


def refusal_of(error: BackendError | InvalidName, name: str = "") -> FileRefusal:
    """Return what a client is told of an error of the kernel's; its own text names the whole path
    in the volume, which is the operator's business and goes to the log."""
    shown = repr(name) if name else "the item"
    if isinstance(error, InvalidName):
        return FileRefusal(400, "invalid-name", f"no such name is possible: it {error}")
    if isinstance(error, NameTooLong):
        return FileRefusal(400, "invalid-name", f"{shown}: the volume has no room for such a name")
    if isinstance(error, ObjectNotFound):
        return missing(name)
    if isinstance(error, ObjectExists):
        return exists(name)
    if isinstance(error, NameCollision):
        return FileRefusal(
            409, "file-exists", f"{shown} differs only in case from a name that is there"
        )
    if isinstance(error, ContentMismatch):
        return FileRefusal(400, "content-mismatch", "the bytes are not what was announced")
    if isinstance(error, StorageFull):
        logger.error("%s: %s", shown, error)
        return FileRefusal(507, "storage-full", "the volume itself has no room left")
    if isinstance(error, QuotaExceeded):
        return FileRefusal(507, "quota-exceeded", str(error) or "a quota would be passed")
    if isinstance(error, PermissionDenied):
        logger.error("%s: %s", shown, error)
        return FileRefusal(403, "storage-denied", "the volume does not permit this")
    if isinstance(error, UnsupportedOperation):
        return FileRefusal(501, "not-supported", "the volume cannot do this")
    if isinstance(error, ReadRangeError):
        return FileRefusal(416, "range-not-satisfiable", f"{shown} is shorter than that")
    wait = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else {}
    if isinstance(error, BackendConnectionError) or error.retryable:
        logger.warning("%s: %s", shown, error)
        return FileRefusal(
            503, "storage-away", "the volume cannot be reached just now; try again", wait
        )
    logger.error("%s: %s", shown, error, exc_info=error)
    return FileRefusal(500, "storage-failed", "the volume failed; see the server's log")
