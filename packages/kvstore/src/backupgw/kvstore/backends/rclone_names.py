"""Names as rclone has them in all that goes in and out of it: its standard encoding.

Control letters become their pictures, and a letter that would then be taken for one of these gets a
quotation mark before it (https://rclone.org/overview/#encoding). What rclone makes of a name for
its remote is its own affair.
"""

from __future__ import annotations

import re

_QUOTE = "\u201b"
_PICTURES = 0x2400
_DELETE, _DELETE_PICTURE = "\x7f", "\u2421"
_DOT = "\uff0e"
_TAKEN = f"\u2400-\u241f{_DELETE_PICTURE}\uff0f{_QUOTE}"
"""Letters that mean something else: pictures, the wide slash, the quotation mark."""
_SPECIAL = re.compile(f"[\x01-\x1f\x7f{_TAKEN}]")
_ENCODED = re.compile(f"{_QUOTE}([{_TAKEN}])|([\u2401-\u241f])|({_DELETE_PICTURE})|(\uff0f)")
_DOTS = {_DOT: f"{_QUOTE}{_DOT}", _DOT * 2: f"{_QUOTE}{_DOT}" * 2}


def encoded(path: str) -> str:
    """Return a path as rclone wants to be told it."""
    if path.isascii() and path.isprintable():
        return path
    return "/".join(map(_encoded, path.split("/")))


def _encoded(segment: str) -> str:
    return _DOTS.get(segment) or _SPECIAL.sub(_for_letter, segment)


def _for_letter(found: re.Match[str]) -> str:
    letter = found[0]
    if letter == _DELETE:
        return _DELETE_PICTURE
    return chr(_PICTURES + ord(letter)) if letter < " " else _QUOTE + letter


def decoded(path: str) -> str:
    """Return a path that rclone told. What no place can hold keeps a slash or a dot too many."""
    if path.isascii():
        return path
    return "/".join(map(_decoded, path.split("/")))


def _decoded(segment: str) -> str:
    for plain, quoted in _DOTS.items():
        if segment == quoted:
            return plain
    if segment in _DOTS:
        return "." * len(segment)
    return _ENCODED.sub(_letter, segment)


def _letter(found: re.Match[str]) -> str:
    quoted, picture, delete, _ = found.groups()
    if quoted:
        return quoted
    if picture:
        return chr(ord(picture) - _PICTURES)
    return _DELETE if delete else "/"
