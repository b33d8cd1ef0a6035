"""What Dropbox's library raises, as the kernel's errors.

The tags are those of the API's documentation; an error of a route is a union of unions, and its
tags from the outermost to the innermost tell what happened.
"""

from __future__ import annotations

from collections.abc import Iterator

import requests
from dropbox.exceptions import (
    ApiError,
    AuthError,
    BadInputError,
    HttpError,
    InternalServerError,
    RateLimitError,
)
from stone.backends.python_rsrc.stone_base import Struct, Union

from .errors import (
    BackendConnectionError,
    BackendError,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from .unreached import authority_hint, reason_of

ERRORS: tuple[type[Exception], ...] = (HttpError, ApiError, requests.RequestException, OSError)
"""What the library raises for a request that failed."""

RECONNECT = "connect the account again with `backupgw store auth`"


def translate(error: Exception, what: str) -> BackendError:
    """Return the kernel's error.

    Args:
        what: the item or the place it is about, for the message.
    """
    if isinstance(error, AuthError):
        return PermissionDenied(f"{what}: Dropbox does not accept the sign-in: {_why(error)}")
    if isinstance(error, RateLimitError):
        return BackendError(
            f"{what}: too many requests to Dropbox", retryable=True, retry_after=error.backoff or 1
        )
    if isinstance(error, InternalServerError):
        return BackendConnectionError(f"{what}: Dropbox fails with status {error.status_code}")
    if isinstance(error, BadInputError):
        return BackendError(f"{what}: Dropbox does not take the request: {error.message[:200]}")
    if isinstance(error, HttpError):
        return BackendError(f"{what}: Dropbox answers with status {error.status_code}")
    if isinstance(error, ApiError):
        return _route_error(tuple(tags(error.error)), what)
    return BackendConnectionError(
        f"{what}: Dropbox cannot be reached: {reason_of(error)}{authority_hint(error)}"
    )


def tags(error: object) -> Iterator[str]:
    """Yield the tags of a route's error, from the outermost in."""
    while error is not None:
        if isinstance(error, Union):
            tag: str = error._tag
            yield tag
            error = error._value
        elif isinstance(error, Struct):
            # An upload's error has its reason in a record.
            error = getattr(error, "reason", None) if hasattr(error, "reason") else None
        else:
            return


def _route_error(found: tuple[str, ...], what: str) -> BackendError:
    last = found[-1] if found else "unknown"
    if "insufficient_space" in found or "insufficient_quota" in found:
        return StorageFull(f"{what}: the Dropbox account has no room left")
    if "conflict" in found:
        return ObjectExists(f"{what} exists ({last})")
    if "not_found" in found:
        return ObjectNotFound(what)
    if last in ("not_file", "not_folder"):
        kind = "folder" if last == "not_file" else "item"
        return ObjectNotFound(f"{what} is a {kind}")
    if last in ("disallowed_name", "malformed_path"):
        return NameTooLong(f"{what}: Dropbox takes no such name")
    if last in ("no_write_permission", "team_folder", "operation_suppressed", "locked"):
        return PermissionDenied(f"{what}: Dropbox does not allow it ({last})")
    busy = last in ("too_many_write_operations", "too_many_requests", "internal_error")
    return BackendError(f"{what}: Dropbox refuses: {'/'.join(found)}", retryable=busy)


def _why(error: AuthError) -> str:
    found = tuple(tags(error.error))
    last = found[-1] if found else "unknown"
    if last == "missing_scope":
        return "the app lacks a permission; set files.content.read and files.content.write"
    return f"{last}; {RECONNECT}"
