"""The lines of an answer's head."""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus

BAD_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")  # RFC 9110, 5.6.2: token
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


@lru_cache(maxsize=256)
def header_name(given: bytes) -> bytes:
    """Return a header's name in lower case. Raises RuntimeError if it can be no name."""
    if BAD_NAME.search(given):
        raise RuntimeError(f"the application sent a malformed header {given!r}")
    return given.lower()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}
