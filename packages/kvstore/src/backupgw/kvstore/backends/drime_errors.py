"""What goes wrong in a conversation with Drime, as errors of the kernel.

No message holds a URL: those of parts and downloads are signed.
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from time import time

import httpx
from pydrime.exceptions import (
    DrimeAPIError,
    DrimeAuthenticationError,
    DrimeInvalidResponseError,
    DrimeNetworkError,
)

from .errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from .unreached import reason_of

KEY_REFUSED = (
    "Drime does not accept the API key; it was revoked or mistyped. Make one in Drime's account "
    "settings (Developers), and give it as the place's api_key"
)

PAGE_ANSWERED = (
    "a web page answers in place of Drime's API: Drime does not accept the API key (it was revoked "
    "or mistyped), or something else answers there (a proxy, the sign-in to a network)"
)

_RETRYABLE = frozenset({408, 425, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524})
_FULL = re.compile(
    r"(exhaust|exceed|not enough|no more|full).*(space|storage|quota)|quota", re.IGNORECASE
)
_LONGEST_MESSAGE = 200


class Refused(BackendError):
    """Drime understood a request, and will not do it (422): the name is taken, the entry is gone,
    or something is wrong with what was asked."""


class TooMany(BackendError):
    """Drime wants fewer requests (429); it has done nothing."""

    retryable = True


def of_status(status: int, retry_after: str | None, message: str, what: str) -> BackendError:
    """Return the error for an answer.

    Args:
        status: HTTP's, not one of success.
        retry_after: the answer's header, None where it has none.
        message: what the service says, "" where it says nothing.
        what: what was to be done, for the message.
    """
    said = f": {message[:_LONGEST_MESSAGE]}" if message else ""
    if status == 401:
        return PermissionDenied(KEY_REFUSED)
    if status in (402, 413, 507) or (status in (403, 422) and _FULL.search(message)):
        return StorageFull(f"{what}: Drime has no room left{said}")
    if status == 403:
        return PermissionDenied(f"{what}: Drime forbids it{said}")
    if status in (404, 410):
        return ObjectNotFound(what)
    if status == 429:
        return TooMany(f"{what}: Drime wants fewer requests{said}", retry_after=_wait(retry_after))
    if status in _RETRYABLE or status >= 500:
        return BackendError(
            f"{what}: Drime answers status {status}{said}",
            retryable=True,
            retry_after=_wait(retry_after),
        )
    if status == 422:
        return Refused(f"{what}: Drime refuses it{said}")
    return BackendError(f"{what}: Drime answers status {status}{said}")


def of_transport(error: Exception, what: str) -> BackendError:
    """Return the error for a connection that could not be made, or broke."""
    said = str(error) if isinstance(error, BackendError) else reason_of(error)
    return BackendConnectionError(f"{what}: the connection to Drime failed ({said})")


def of_client(error: DrimeAPIError, what: str) -> BackendError:
    """Return the error for what pydrime raised; the original is to be its cause."""
    cause = error.__cause__
    if isinstance(error, DrimeAuthenticationError):
        return PermissionDenied(KEY_REFUSED)
    if isinstance(cause, httpx.HTTPStatusError):
        answer = cause.response
        wait = answer.headers.get("Retry-After")
        return of_status(answer.status_code, wait, message_of(_content(answer)), what)
    if isinstance(error, DrimeNetworkError):
        if isinstance(cause, httpx.HTTPError):
            return of_transport(cause, what)
        return BackendConnectionError(f"{what}: the connection to Drime failed")
    if isinstance(error, DrimeInvalidResponseError):
        return BackendError(f"{what}: something that is not Drime answers", retryable=True)
    return BackendError(f"{what}: {error}")


def _content(response: httpx.Response) -> bytes:
    try:
        return response.content
    except httpx.ResponseNotRead:
        return b""


def message_of(content: bytes) -> str:
    """Return what a refusal says, "" where it says nothing that was meant for people."""
    try:
        said = json.loads(content)
    except ValueError:
        return ""
    message = said.get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else ""


def _wait(retry_after: str | None) -> float | None:
    """Return the seconds that Retry-After asks for, as a number or as a date (RFC 9110, 10.2.3)."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None
