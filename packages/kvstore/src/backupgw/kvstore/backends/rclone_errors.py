"""What rclone's errors mean. It answers with a sentence, and with 404 where nothing is there; the
sentence is the remote's own, wrapped, so it is looked through for the words of each kind."""

from __future__ import annotations

import re

from .errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    NameTooLong,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from .rclone_remote import Remote

NOT_FOUND = 404
_LONGEST = 600


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_MISSING = _words(
    "object not found", "directory not found", "no such file or directory", "is a directory not a",
    "not a directory", "no such bucket", "NoSuchKey", "NoSuchBucket", "file does not exist",
)  # fmt: skip
_NO_REMOTE = _words(r"didn't find section in config file(?: \(\"([^\"]+)\"\))?")
_NO_TYPE = _words(
    r"didn't find backend called", "failed to parse connection string", "invalid remote"
)
_NO_CREDENTIALS = _words(
    "couldn't fetch token", "invalid_grant", "token has been (?:expired|revoked)", "expired_access",
    "invalid_access_token", "failed to (?:configure|refresh) token", "maybe token expired",
)  # fmt: skip
_REFUSED = _words(
    r"permission denied", r"access.?denied", "forbidden", "unauthori[sz]ed", r"\b40[13]\b",
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "bad_auth_token", "not permitted", "read-?only",
    "authentication failed", "unable to authenticate", "invalid credentials", "login incorrect",
)  # fmt: skip
_FULL = _words(
    "no space left", "quota ?exceeded", "disk quota", "storage_?cap", "cap exceeded", r"\b507\b",
    "insufficient.?(?:storage|space)", "out of (?:space|storage)", "storage ?(?:limit|quota)",
    "over quota", "TeamMemberOverQuota", "QuotaExceeded", "remaining disk space",
)  # fmt: skip
_BUSY = _words(
    r"\b429\b", "too many requests", "rate.?limit", "slow ?down", "userRateLimit", "throttl",
    "too_many_", "activityLimitReached",
)  # fmt: skip
_LOST = _words(
    "connection (?:refused|reset|timed out|aborted|lost|closed)", "no such host", r"i/o timeout",
    "broken pipe", "unexpected EOF", "TLS handshake", "deadline exceeded", "network is unreachable",
    "no route to host", "request send failed", "couldn't connect", "use of closed network",
    "server misbehaving", r"\bEOF$",
)  # fmt: skip
_FAILING = _words(
    r"\b50[0234]\b", "internal ?(?:server ?)?error", "service ?unavailable", "bad gateway"
)
_AFTER = re.compile(
    r"(?:retry.after|try again in|retry in)\D{0,12}(\d{1,6})(?: ?(m?s)\b)?", re.IGNORECASE
)
_WRAPPED = re.compile(
    r"^(?:error in ListJSON|failed to find object|failed to make Fs|failed to open|"
    r"failed to prepare upload): "
)


def translate(status: int, said: str, what: str, remote: Remote) -> BackendError:
    """Return the error that an answer of rclone's is.

    Args:
        status: HTTP's.
        said: its sentence.
        what: the item or folder, for the message.
    """
    text = _WRAPPED.sub("", " ".join(remote.without_secrets(said).split()))
    where = f"{what}: " if what else ""
    message = f"{remote.shown}: {where}{_shortened(text)}"
    if missing := _NO_REMOTE.search(text):
        return BackendDoesNotExist(
            f"rclone's settings have no remote {missing[1] or remote.name!r}: make it with "
            "`rclone config`, or name the file that has it with the option config"
        )
    if _NO_TYPE.search(text):
        return BackendURLInvalid(message)
    if status == NOT_FOUND:
        return ObjectNotFound(what)
    if _NO_CREDENTIALS.search(text):
        return PermissionDenied(f"{message}; try `rclone config reconnect {remote.name}:`")
    if _BUSY.search(text):
        return BackendError(message, retryable=True, retry_after=_after(text))
    if _FULL.search(text):
        return StorageFull(message)
    if "name too long" in text:
        return NameTooLong(message)
    if _MISSING.search(text):
        return ObjectNotFound(what)
    if _REFUSED.search(text):
        return PermissionDenied(message)
    if _LOST.search(text):
        return BackendConnectionError(message)
    return BackendError(message, retryable=bool(_FAILING.search(text)))


def _shortened(text: str) -> str:
    """Leave out the middle of a long sentence: names are there, and the reason is at the end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"


def _after(text: str) -> float | None:
    found = _AFTER.search(text)
    if found is None:
        return None
    return float(found[1]) / (1000 if (found[2] or "").lower() == "ms" else 1)
