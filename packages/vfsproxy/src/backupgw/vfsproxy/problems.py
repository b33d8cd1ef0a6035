"""What went wrong, as RFC 9457 has it: application/problem+json.

`error_code`, `msg` and `data` are there beside RFC 9457's members because clients of Backend.AI's
storage proxy look at them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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
from backupgw.kvstore.ledger import LedgerError, LimitExceeded
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.database.errors import DatabaseError
from backupgw.runtime.jobs import JobConflict, UnknownJob

from .names import BadName

log = logging.getLogger(__name__)

TYPE = "urn:backupgw:vfs:"
"""What the types of problems begin with; the code follows."""

MEDIA_TYPE = b"application/problem+json"


class ProblemDocument(BaseModel):
    """The body of every refusal.

    Attributes:
        type: a URN that names the kind of problem.
        title: the kind of problem, for a person.
        status: the HTTP status.
        detail: what is wrong with this very request.
        error_code: the last part of `type`.
        msg: the same as `detail`.
        data: what a program can use: which scope is full, which fields are wrong.
    """

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    error_code: str
    msg: str
    data: dict[str, Any]


class Problem(Exception):
    """An answer other than success.

    Args:
        status: of HTTP.
        code: kebab-case, such as "folder-not-found"; clients may rely on it.
        detail: one line for a person; no path of the machine, no secret.
        headers: further ones of the answer.
        data: for programs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or []
        self.data = dict(data or {})

    def document(self) -> ProblemDocument:
        """Return the body."""
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = "Refused"  # 460, which tus has for a checksum that is wrong
        return ProblemDocument(
            type=TYPE + self.code,
            title=title,
            status=self.status,
            detail=self.detail,
            error_code=self.code,
            msg=self.detail,
            data=self.data,
        )


class FolderChanged(PermissionDenied):
    """A change of a folder's content came too late: the folder is being deleted, or was given
    away, or is being brought back to a snapshot. Nothing was changed."""


def not_found(what: str) -> Problem:
    """Return the answer about something that is not there, or not for this client to see."""
    return Problem(404, f"{what}-not-found", f"there is no such {what}")


def problem_of(error: Exception, what: str) -> Problem:
    """Return what a client is told of an exception.

    Args:
        what: the request, for the log.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, FolderChanged):
        return Problem(409, "folder-not-ready", str(error))
    if isinstance(error, InvalidName | BadName):
        return Problem(400, "invalid-name", str(error))
    if isinstance(error, UnknownJob):
        return not_found("task")
    if isinstance(error, JobConflict):
        return Problem(409, "task-exists", "there is such a task already")
    if isinstance(error, DatabaseError):
        log.error("%s: %s", what, error)
        if error.retryable:
            return _later("the gateway's database cannot be reached just now", None)
        return _failed()
    if isinstance(error, BackendError):
        return _of_backend(error, what)
    log.error("%s: %s", what, error, exc_info=error)
    return _failed()


def _of_backend(error: BackendError, what: str) -> Problem:
    # Names in messages are the volume's, which are not the client's business.
    match error:
        case ObjectNotFound():
            return Problem(404, "file-not-found", "there is no such file")
        case ObjectExists():
            return Problem(409, "file-exists", "there is a file or folder of that name")
        case NameCollision():
            return Problem(409, "name-collision", "a name that differs only in case is taken")
        case NameTooLong():
            return Problem(400, "invalid-name", "the volume has no room for a name of that length")
        case ReadRangeError():
            return Problem(416, "range", "the file ends before that range")
        case ContentMismatch():
            return Problem(400, "content-mismatch", "the bytes are not those that were announced")
        case LimitExceeded():
            return over_limit(error)
        case StorageFull():
            log.error("%s: %s", what, error)
            return Problem(507, "storage-full", "the volume has no room left")
        case QuotaExceeded():
            return Problem(507, "quota-exceeded", "the volume's quota has no room for that")
        case PermissionDenied():
            return Problem(403, "permission-denied", "your permission for this folder is too small")
        case UnsupportedOperation():
            return Problem(501, "unsupported", "the volume cannot do that")
        case LedgerError() | BackendConnectionError() if error.retryable:
            log.warning("%s: %s", what, error)
            return _later("the storage cannot be reached just now", error.retry_after)
    if error.retryable:
        log.warning("%s: %s", what, error)
        return _later("the storage cannot be reached just now", error.retry_after)
    log.error("%s: %s", what, error, exc_info=error)
    return _failed()


def over_limit(error: LimitExceeded) -> Problem:
    """Return the answer about a limit; which one it is, and how much is left, is told."""
    kind, _, name = error.scope.removeprefix("vfs:").partition(":")
    left = max(0, error.limit - error.used - error.reserved)
    return Problem(
        507,
        "quota-exceeded",
        f"the {kind}'s limit of {error.limit} {_measured(error.measure)} leaves {left}",
        data={
            "scope": kind,
            "name": name,
            "measure": _measured(error.measure),
            "limit": error.limit,
            "used": error.used,
            "reserved": error.reserved,
            "asked": error.asked,
        },
    )


def _measured(measure: str) -> str:
    return "files" if measure == "objects" else str(measure)


def _later(detail: str, seconds: float | None) -> Problem:
    wait = b"%d" % max(1, round(seconds or 1))
    return Problem(503, "try-later", detail, headers=[(b"retry-after", wait)])


def _failed() -> Problem:
    return Problem(500, "internal", "the gateway failed; its log says why")
