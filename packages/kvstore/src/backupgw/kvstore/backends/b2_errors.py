"""What Backblaze's errors mean, by the SDK's exceptions.

https://www.backblaze.com/apidocs/b2-error-codes
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from b2sdk.v3 import exception as b2

from .errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    NameTooLong,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    StorageFull,
)
from .unreached import reason_of

T = TypeVar("T")

_LOST = (
    b2.B2ConnectionError,
    b2.B2RequestTimeout,
    b2.BrokenPipe,
    b2.ConnectionReset,
    b2.RequestTimeout,
    b2.UnknownHost,
)
_NOT_FOUND = (
    *(each for each in b2.FileNotPresent.__mro__ if each.__name__ == "ResourceNotFound"),
    b2.UnsatisfiableRange,
)
"""The first has no public name: an answer of 404 without words, as to HEAD."""

_BROKEN_ANSWER = ("ChunkedEncodingError", "JSONDecodeError", "IncompleteRead", "ConnectionError")


class Translator:
    """Makes kernel errors of the SDK's.

    Args:
        place: what messages call it.
        key: tells the key's restrictions, for what it is refused.
    """

    def __init__(self, place: str, key: Callable[[], str]) -> None:
        self._place = place
        self._key = key

    def call(self, what: str, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Do `work`. Raises BackendErrors only.

        Args:
            what: the item, folder or step that messages name.
        """
        try:
            return partial(work, *args, **kwargs)()
        except b2.B2Error as error:
            raise self.error(error, what) from error
        except json.JSONDecodeError as error:
            where = f"{self._place}: {what}: " if what else f"{self._place}: "
            raise BackendConnectionError(
                f"{where}the answer is no JSON: it was cut short, or another server gave it"
            ) from error

    def error(self, error: Exception, what: str) -> BackendError:
        """Return what an error of the SDK means."""
        where = f"{self._place}: {what}: " if what else f"{self._place}: "
        said = " ".join(str(error).split())[:500]
        match error:
            case b2.StorageCapExceeded():
                return StorageFull(
                    f"{where}the storage cap of the account is reached; raise it on Backblaze's "
                    "page Caps & Alerts, or remove something"
                )
            case b2.CapExceeded():
                return QuotaExceeded(
                    f"{where}a daily cap of the account is reached; raise it on Backblaze's page "
                    "Caps & Alerts, or wait until midnight GMT"
                )
            case b2.NonExistentBucket() | b2.BucketIdNotFound():
                return BackendDoesNotExist(f"{self._place}: there is no such bucket")
            case _ if isinstance(error, _NOT_FOUND):
                return ObjectNotFound(what)
            case b2.Unauthorized() | b2.AccessDenied() | b2.NotAllowedByAppKeyError():
                return PermissionDenied(f"{where}{_refusal(error)}{self._key()}")
            case b2.RestrictedBucket():
                return PermissionDenied(f"{where}the key is for another bucket{self._key()}")
            case b2.UnusableFileName():
                return NameTooLong(f"{where}B2 has no room for the name: {said}")
        if isinstance(error, _LOST):
            why = reason_of(error)
            if why == type(error).__name__:  # an answer, of a service that gave up waiting
                return BackendConnectionError(f"{where}{said}")
            return BackendConnectionError(f"{where}B2 cannot be reached: {why}")
        if isinstance(error, b2.B2Error) and (
            error.should_retry_http() or error.should_retry_upload()
        ):
            after = error.retry_after_seconds
            return BackendError(
                f"{where}{said}",
                retryable=True,
                retry_after=float(after) if after is not None else None,
            )
        if isinstance(error, b2.UnknownError) and any(sign in said for sign in _BROKEN_ANSWER):
            return BackendConnectionError(f"{where}the connection broke in an answer")
        return BackendError(f"{where}{said}")


def _refusal(error: Exception) -> str:
    if isinstance(error, b2.InvalidAuthToken):
        return "the application key is not accepted: unknown, expired or revoked"
    return "the application key does not permit it"
