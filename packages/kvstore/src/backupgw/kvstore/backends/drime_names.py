"""How names of ours are written in Drime, and which entries of Drime's have a name of ours.

Drime cuts blanks from the ends of a name, and takes neither control characters nor a backslash
(rclone has measured the latter, https://rclone.org/drime/). Such characters are written as `%XX`,
by byte; a `%` that would read as one is `%25`. All other names, restic's among them, are written
as they are.
"""

from __future__ import annotations

import re

from .errors import NameTooLong

LONGEST = 255
"""Bytes of a name in Drime."""

_BLANKS = "\\s\u0085\ufeff\u200b-\u200f\u2028-\u202e\u2060-\u2064"
_ESCAPED = re.compile(
    rf'[\x00-\x1f\x7f-\x9f"\\]'  # what Drime, or the head of an upload, cannot say
    rf"|\A[{_BLANKS}]+|[{_BLANKS}]+\Z"
    r"|%(?=[0-9A-Fa-f]{2})"
)
_ESCAPES = re.compile(r"(?:%[0-9A-F]{2})+")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}\Z")


def is_plain(segment: str) -> bool:
    """Whether a search surely finds the name: letters of ASCII, digits, `.`, `_` and `-`."""
    return _PLAIN.match(segment) is not None


def is_hash(segment: str) -> bool:
    """Whether a name is the SHA-256 of its value, as all but `config` are in a repository."""
    return _HASH.match(segment) is not None


def written(segment: str) -> str:
    """Return a segment of a path as Drime has it.

    Raises:
        NameTooLong: it has more bytes than Drime takes.
    """
    if _PLAIN.match(segment):
        return segment
    text = _ESCAPED.sub(_escape, segment)
    if len(text.encode()) > LONGEST:
        raise NameTooLong(f"{segment[:40]!a}…: Drime has room for {LONGEST} bytes of a name")
    return text


def read(name: str) -> str | None:
    """Return the segment that an entry of Drime's stands for, None where it stands for none."""
    if _PLAIN.match(name) and name not in (".", ".."):
        return name
    try:
        segment = _ESCAPES.sub(_unescape, name)
        found = written(segment)
    except (UnicodeError, NameTooLong):
        return None
    if found != name or "/" in segment or segment in ("", ".", "..") or "\0" in segment:
        return None
    return segment


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match.group().replace("%", "")).decode()
