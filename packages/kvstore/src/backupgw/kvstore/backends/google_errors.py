"""What Google's services and libraries say, in the kernel's words.

Reasons: https://cloud.google.com/storage/docs/json_api/v1/status-codes and
https://developers.google.com/workspace/drive/api/guides/handle-errors
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth import exceptions as auth_errors
from urllib3.exceptions import HTTPError

from .errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    ReadRangeError,
    StorageFull,
)
from .unreached import authority_hint, in_a_line, reason_of

ERRORS: tuple[type[Exception], ...] = (
    GoogleAPICallError,
    auth_errors.GoogleAuthError,
    requests.RequestException,
    HTTPError,
    OSError,
)
"""What the libraries raise."""

_BAD, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE = 400, 401, 403, 404, 410
_PRECONDITION, _RANGE, _TOO_MANY = 412, 416, 429

_SLOW_DOWN = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "sharingRateLimitExceeded",
        "backendError",
        "internalError",
    }
)
"""What passes by itself, whatever status it comes with."""
_DAY = frozenset({"dailyLimitExceeded", "quotaExceeded"})
_FULL = frozenset(
    {"storageQuotaExceeded", "teamDriveFileLimitExceeded", "teamDriveHierarchyTooDeep"}
)
_RATE_STATUS = frozenset({408, 425, _TOO_MANY, 500, 502, 503, 504})
_MOST_READ = 4096
"""Bytes of an answer that is no JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal.

    Attributes:
        status: of HTTP.
        reason: Google's word for it, "" where it has none.
        message: Google's sentence.
        retry_after: seconds, where the answer said so.
    """

    status: int
    reason: str
    message: str
    retry_after: float | None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return what an answer of an API says."""
        reason = message = ""
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError):
            error: Any = json.loads(body)["error"]
            message = str(error.get("message") or "")
            reason = str(error["errors"][0].get("reason") or "")
        if not message:
            message = in_a_line(body[:_MOST_READ].decode("utf-8", "replace"))
        return cls(status, reason, message[:300], _retry_after(headers))


class Refused(BackendError):
    """An answer that has no closer meaning: `answer`."""

    def __init__(self, message: str, answer: Answer, *, retryable: bool = False) -> None:
        super().__init__(message, retryable=retryable, retry_after=answer.retry_after)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Translator:
    """Makes kernel errors of what a service's libraries raise.

    Attributes:
        service: what messages call it.
        reconnect: what a person does when the sign-in is refused.
    """

    service: str
    reconnect: str

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """What the libraries raise leaves the block as the kernel's.

        Args:
            what: the item or place it is about, for the message.
        """
        try:
            yield
        except ERRORS as error:
            raise self.error(error, what) from error

    def error(self, error: Exception, what: str) -> BackendError:
        """Return what an error of the libraries means."""
        if isinstance(error, GoogleAPICallError):
            return self.refusal(_answer_of(error), what)
        if isinstance(error, auth_errors.TransportError):
            return BackendConnectionError(
                f"{what}: Google's sign-in cannot be reached: {reason_of(error)}"
                f"{authority_hint(error)}"
            )
        if isinstance(error, auth_errors.GoogleAuthError):
            return self._not_signed_in(error, what)
        if isinstance(error, requests.exceptions.SSLError):
            return BackendError(
                f"{what}: {self.service} cannot be reached: {reason_of(error)}"
                f"{authority_hint(error)}"
            )
        if isinstance(error, requests.exceptions.Timeout):
            return BackendConnectionError(f"{what}: {self.service} did not answer in time")
        return BackendConnectionError(
            f"{what}: the connection to {self.service} broke: {reason_of(error)}"
        )

    def _not_signed_in(self, error: auth_errors.GoogleAuthError, what: str) -> BackendError:
        why = in_a_line(str(error.args[0]))[:200] if error.args else type(error).__name__
        if error.retryable:
            return BackendConnectionError(
                f"{what}: Google's sign-in does not answer as it should: {why}"
            )
        return PermissionDenied(
            f"{what}: {self.service} does not accept the sign-in: {why}; {self.reconnect}"
        )

    def refusal(self, answer: Answer, what: str) -> BackendError:
        """Return what an answer that is no success means."""
        status, reason = answer.status, answer.reason
        said = f"{what}: {self.service}: {status} {reason}: {answer.message}"
        damaged = status == _BAD and "crc32c" in answer.message.lower()
        if status in _RATE_STATUS or reason in _SLOW_DOWN or damaged:
            return Refused(said, answer, retryable=True)
        if reason in _FULL:
            return StorageFull(f"{what}: {self.service} has no room left: {answer.message}")
        if reason in _DAY:
            return QuotaExceeded(f"{what}: {self.service}: {answer.message}")
        if status == _NOT_FOUND and "bucket does not exist" in answer.message:
            return BackendDoesNotExist(f"{self.service} has no bucket of that name")
        if status in (_NOT_FOUND, _GONE):
            return ObjectNotFound(what)
        if status == _PRECONDITION:
            return ObjectExists(f"{what} exists, or was replaced meanwhile")
        if status == _RANGE:
            return ReadRangeError(f"{what}: it is shorter")
        if status == _UNAUTHORIZED:
            return PermissionDenied(
                f"{what}: {self.service} does not accept the sign-in; {self.reconnect}"
            )
        if status == _FORBIDDEN:
            return PermissionDenied(f"{what}: {self.service} does not allow this: {answer.message}")
        return Refused(said, answer)

    def check(self, response: requests.Response, what: str, *accepted: int) -> None:
        """Raise what an answer means unless it has one of the statuses; it is read then."""
        if response.status_code not in accepted:
            with response:
                answer = Answer.of(response.status_code, response.headers, response.content)
            raise self.refusal(answer, what)


def _answer_of(error: GoogleAPICallError) -> Answer:
    response = error.response
    if isinstance(response, requests.Response):
        return Answer.of(response.status_code, response.headers, response.content)
    return Answer(int(error.code or 0), "", error.message or "", None)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    value = str({name.lower(): text for name, text in headers.items()}.get("retry-after", ""))
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(when.timestamp() - time.time(), 0.0)
