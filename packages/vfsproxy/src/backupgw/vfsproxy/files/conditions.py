"""Validators and preconditions of HTTP (RFC 9110, 8.8 and 13): is it still the same file?

A file's entity tag is made of when it was changed and how long it is, which every volume tells; a
volume that does not say when has weak ones, by which nobody can carry a download on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from enum import Enum

from backupgw.kvstore.backends.base import ItemInfo

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_FRESH = 2.0
"""Seconds in which a file may be changed twice, where a volume tells times in whole seconds."""


class Outcome(Enum):
    """What a request's preconditions come to."""

    GO_ON = "go on"
    NOT_MODIFIED = "304"
    FAILED = "412"


def entity_tag(info: ItemInfo, now: float) -> str:
    """Return the ETag of a file.

    Args:
        now: seconds since 1970.
    """
    tag = f'"{round(info.mtime * 1_000_000):x}-{info.size:x}"'
    sure = info.mtime and (info.mtime % 1 or now - info.mtime > _FRESH)
    return tag if sure else f"W/{tag}"


def last_modified(info: ItemInfo) -> str | None:
    """Return the Last-Modified of a file, None where the volume does not tell."""
    return formatdate(info.mtime, usegmt=True) if info.mtime > 0 else None


def evaluate(headers: Mapping[str, str], info: ItemInfo, tag: str, *, reading: bool) -> Outcome:
    """Return what the preconditions of a request come to, in RFC 9110's order (13.2.2).

    Args:
        info: of the file; one that does not exist has no tag.
        reading: it is a GET or HEAD.
    """
    match = headers.get("if-match")
    if match is not None:
        if not info.exists or not _matches(match, tag, strong=True):
            return Outcome.FAILED
    elif (since := _seconds(headers.get("if-unmodified-since"))) is not None and (
        not info.exists or int(info.mtime) > since
    ):
        return Outcome.FAILED
    none = headers.get("if-none-match")
    if none is not None:
        if info.exists and _matches(none, tag, strong=False):
            return Outcome.NOT_MODIFIED if reading else Outcome.FAILED
    elif (
        reading
        and info.mtime > 0
        and (since := _seconds(headers.get("if-modified-since"))) is not None
        and int(info.mtime) <= since
    ):
        return Outcome.NOT_MODIFIED
    return Outcome.GO_ON


def range_holds(headers: Mapping[str, str], info: ItemInfo, tag: str) -> bool:
    """Whether If-Range lets a range be sent: the client's first part is of this very file."""
    told = headers.get("if-range")
    if told is None:
        return True
    if told.startswith(('"', "W/")):
        return told == tag and not tag.startswith("W/")
    # A date is strong only where nothing can have changed twice in its second.
    return not tag.startswith("W/") and told == last_modified(info)


def _matches(header: str, tag: str, *, strong: bool) -> bool:
    if header.strip() == "*":
        return True
    opaque = tag.removeprefix("W/")
    for weak, other in _TAG.findall(header):
        if other == opaque and not (strong and (weak or tag.startswith("W/"))):
            return True
    return False


def _seconds(date: str | None) -> float | None:
    """Return an HTTP date as seconds since 1970, None for what is none: it is ignored then."""
    if date is None:
        return None
    try:
        parsed = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
