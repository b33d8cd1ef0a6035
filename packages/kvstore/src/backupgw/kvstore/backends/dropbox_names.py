"""Names as Dropbox takes them.

Dropbox has no room for some names that are fine elsewhere: with a backslash, DEL or another control
character, with a blank at an end or a dot at the end, and those of its own and of Windows' system
files. Such a character is written as U+201B (`MARK`) and two hexadecimal digits for each of its
bytes in UTF-8, and the mark itself likewise; so every name comes back exactly. Names are kept in
NFC by Dropbox's clients: what is not in that form is written so too.
"""

from __future__ import annotations

import re
import unicodedata

from .errors import NameTooLong

MARK = "\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}"
LONGEST = 255
"""Characters of a name."""

_ALWAYS = re.compile(rf"[\x00-\x1f\x7f\\{MARK}]")
_AT_AN_END = re.compile(r"^ +| +$|\.+$")
_MARKED = re.compile(rf"(?:{MARK}[0-9A-F]{{2}})+")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z", re.ASCII)
_TAKEN = frozenset({"desktop.ini", "thumbs.db", ".dropbox", ".dropbox.attr", ".dropbox.cache"})
"""Names that Dropbox refuses or its clients do not show."""


def encode_path(path: str) -> str:
    """Return a path of ours as Dropbox has it.

    Raises:
        NameTooLong: Dropbox has no room for a segment.
    """
    return "/".join(map(encode, path.split("/"))) if path else ""


def encode(segment: str) -> str:
    """Return a name of ours as Dropbox has it. Raises NameTooLong."""
    if not _PLAIN.match(segment):
        segment = _encode(segment)
    if len(segment) > LONGEST:
        raise NameTooLong(f"Dropbox has no room for a name of {len(segment)} characters")
    return segment


def _encode(segment: str) -> str:
    if not unicodedata.is_normalized("NFC", segment):
        return "".join(
            char if char.isascii() and char.isalnum() else _marked(char) for char in segment
        )
    if segment.lower() in _TAKEN or segment.startswith(("~$", ".~")):
        return _marked(segment[0]) + encode(segment[1:])
    segment = _ALWAYS.sub(lambda found: _marked(found[0]), segment)
    return _AT_AN_END.sub(lambda found: _marked(found[0]), segment)


def decode(name: str) -> str:
    """Return a name of Dropbox's as ours. What nobody of us wrote is taken as it is."""
    if MARK not in name:
        return name
    try:
        return _MARKED.sub(lambda found: bytes.fromhex(found[0].replace(MARK, "")).decode(), name)
    except UnicodeDecodeError:
        return name


def _marked(text: str) -> str:
    return "".join(f"{MARK}{byte:02X}" for byte in text.encode())
