"""Which status a failure has in the protocol, and what the client is told of it."""

from __future__ import annotations

import logging

from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
)
from backupgw.kvstore.names import InvalidName

from .paths import Target

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """An answer other than success: a status, one line for a person, perhaps headers."""

    def __init__(self, status: int, text: str, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or []


def _said(error: Exception, name: str) -> str:
    """Return what is logged: the kernel's words, which begin with the name as a rule."""
    said = str(error)
    return said if said.startswith(f"{name}:") else f"{name}: {said}"


def refusal_for(error: Exception, target: Target | None) -> Refusal:
    """Return the protocol's status for what the kernel says."""
    what = _said(error, target.name if target is not None else "request")
    if isinstance(error, ObjectNotFound | InvalidName):
        return Refusal(404, "no such repository or object")
    if isinstance(error, ObjectExists):
        return Refusal(403, str(error))
    if isinstance(error, ContentMismatch):
        return Refusal(400, str(error))
    if isinstance(error, QuotaExceeded):
        log.warning("%s", what)
        return Refusal(507, str(error))
    if isinstance(error, PermissionDenied):
        log.error("%s", what)
        return Refusal(403, "the storage does not permit this; see the server's log")
    wait = getattr(error, "retry_after", None)
    headers: Headers = [(b"retry-after", b"%d" % max(1, round(wait)))] if wait else []
    if isinstance(error, BackendConnectionError) or getattr(error, "retryable", False):
        log.warning("%s", what)
        return Refusal(503, "the storage cannot be reached just now", headers)
    log.error("%s", what, exc_info=error)
    return Refusal(500, "the storage failed; see the server's log", headers)
