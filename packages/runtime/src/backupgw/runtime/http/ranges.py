"""The Range header, as far as restic and browsers use it: one range of bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(rb"bytes=[ \t]*(\d*)[ \t]*-[ \t]*(\d*)[ \t]*\Z", re.ASCII)
_MAX_DIGITS = 19
"""Digits of the largest size a file can have (2**63 - 1)."""


class ByteRange(NamedTuple):
    """What to ask a reader for: an offset (negative: from the end) and a size (None: the rest)."""

    offset: int
    size: int | None


class InvalidRange(ValueError):
    """The header is no range of bytes: 416."""


def parse(header: bytes) -> ByteRange | None:
    """Return the range asked for; None where the whole item is the right answer (RFC 9110,
    section 14.2 lets a server ignore several ranges).

    Raises:
        InvalidRange: it is malformed, of another unit than bytes, or empty by its own numbers.
    """
    if not header:
        return None
    match = _ONE_RANGE.match(header)
    if match is None:
        if header.startswith(b"bytes=") and b"," in header:
            return None
        raise InvalidRange("malformed Range header")
    first, last = match.groups()
    if len(first) > _MAX_DIGITS or len(last) > _MAX_DIGITS:
        raise InvalidRange("a number in the Range header is too large")
    if first:
        offset = int(first)
        if not last:
            return ByteRange(offset, None)
        if int(last) < offset:
            raise InvalidRange("the Range ends before it starts")
        return ByteRange(offset, int(last) - offset + 1)
    if not last:
        raise InvalidRange("malformed Range header")
    if int(last) == 0:
        # RFC 9110, 14.1.2: unsatisfiable. As an offset, -0 would be the whole object.
        raise InvalidRange("the Range asks for the last 0 bytes")
    return ByteRange(-int(last), None)
