"""What S3 and its library say, in the kernel's words. The only place where they are translated.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and those of other
services where they differ. An answer to HEAD has no code but its status.
"""

from __future__ import annotations

import email.utils
import time

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from .errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    ReadRangeError,
    StorageFull,
    UnsupportedOperation,
)
from .unreached import authority_hint, reason_of

TRANSLATED = (boto.BotoCoreError, ClientError, boto.HTTPClientError, OSError)
"""What the library raises."""

_MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound", "404"})
_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "Unauthorized"}
)
_EXPIRED = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"}
)
_REGION = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "301",
        "307",
    }
)
_FULL = frozenset({"XMinioStorageFull", "InsufficientCapacity", "StorageFull", "507"})
_QUOTA = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "AccountProblem"})
_MOMENT = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "OperationAborted",
        "ConditionalRequestConflict",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "TooManyRequests",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "ClientDisconnected",
        "ConcurrentModification",
    }
)
"""What passes by itself. A digest that does not fit was damaged on the way."""

_UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
_TOO_MANY = 429
_NOT_FOUND, _FORBIDDEN, _PRECONDITION, _RANGE = 404, 403, 412, 416
_STATUS_MOMENT = frozenset({408, 425, _TOO_MANY, 500, 502, 503, 504})


def code_of(error: BaseException | None) -> str:
    """Return S3's code for an error, "" where it is none of its."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of an answer, 0 where there was none."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def translate(error: Exception, what: str, server: str) -> BackendError:
    """Return the error that a caller is told.

    Args:
        what: the item's name, or what was done.
        server: what messages call the service.
    """
    if isinstance(error, ClientError):
        return _answered(error, what, server)
    return _unanswered(error, what, server)


def _answered(error: ClientError, what: str, server: str) -> BackendError:
    code, status = code_of(error), status_of(error)
    said = str(error.response.get("Error", {}).get("Message") or code or status)
    if code == "NoSuchBucket":
        return BackendDoesNotExist(f"{server} has no bucket of that name")
    if code in _MISSING or (status == _NOT_FOUND and not code):
        return ObjectNotFound(what)
    if code == "PreconditionFailed" or status == _PRECONDITION:
        return ObjectExists(f"{what} exists")
    if code == "InvalidRange" or status == _RANGE:
        return ReadRangeError(f"{what}: it is shorter")
    if code == "KeyTooLongError":
        return NameTooLong(what)
    if code in _FULL or status == 507:
        return StorageFull(f"{what}: {server} has no room: {said}")
    if code in _QUOTA or "cap exceeded" in said.lower():
        return QuotaExceeded(f"{what}: {server}: {said}")
    if code in _MOMENT or status in _STATUS_MOMENT:
        return BackendError(
            f"{what}: {server}: {status} {code}: {said}",
            retryable=True,
            retry_after=_retry_after(error),
        )
    if code in _UNSUPPORTED:
        return UnsupportedOperation(f"{what}: {server} cannot do this: {said}")
    if code in _REGION:
        return BackendError(f"{what}: {said}; set `region` to the bucket's")
    if (denied := _denied(code, status, said, what, server)) is not None:
        return denied
    return BackendError(f"{what}: {server}: {status} {code}: {said}")


def _denied(code: str, status: int, said: str, what: str, server: str) -> BackendError | None:
    if code == "InvalidObjectState":
        return BackendError(f"{what}: it lies in an archive, and has to be restored there first")
    if code == "RequestTimeTooSkewed":
        return BackendError(f"{what}: this machine's clock differs too much from {server}'s")
    if code in _EXPIRED:
        return PermissionDenied(f"{what}: {server}: the credentials have expired: {said}")
    if code in _KEYS:
        return PermissionDenied(
            f"{what}: {server} does not know the key, or its secret is wrong ({code}): check "
            "access_key_id and secret_access_key, the profile, or the environment"
        )
    if code == "AccessDenied" or status in (401, _FORBIDDEN):
        return PermissionDenied(f"{what}: {server} does not allow this to the key: {said}")
    return None


def _unanswered(error: Exception, what: str, server: str) -> BackendError:
    match error:
        case boto.NoCredentialsError() | boto.PartialCredentialsError():
            return PermissionDenied(
                f"no credentials for {server}: set access_key_id and secret_access_key, name a "
                "profile, or give this machine a role"
            )
        case boto.ProfileNotFound():
            return PermissionDenied(f"{error}: see `aws configure list-profiles`")
        case (
            boto.CredentialRetrievalError()
            | boto.SSOError()
            | boto.TokenRetrievalError()
            | boto.MetadataRetrievalError()
        ):
            return PermissionDenied(f"credentials for {server} could not be had: {error}")
        case boto.SSLError():
            return BackendError(
                f"{what}: {server} cannot be reached: {reason_of(error)}{authority_hint(error)}"
            )
        case boto.ParamValidationError() | boto.InvalidEndpointDiscoveryConfigurationError():
            return BackendError(f"{what}: {error}")
        case boto.NoRegionError():
            return BackendError(f"{server}: no region is set: set `region`")
        case boto.ReadTimeoutError() | boto.ConnectTimeoutError():
            return BackendConnectionError(f"{what}: {server} did not answer in time")
        case boto.EndpointConnectionError():
            # Its text is the URL again, and no reason.
            return BackendConnectionError(f"{what}: {server} cannot be reached: {reason_of(error)}")
        case boto.FlexibleChecksumError():
            return BackendConnectionError(f"{what}: damaged on the way: {error}")
    return BackendConnectionError(f"{what}: the connection to {server} broke: {error}")


def _retry_after(error: ClientError) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = str(headers.get("retry-after", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(when.timestamp() - time.time(), 0.0)
