"""What clients may call a file: paths in a folder, however they were written on the wire.

A path is segments joined by `/`, in UTF-8, beneath the folder that it is said of. On top of the
kernel's rules (`kvstore.names`: no empty, `.` or `..` segment, 255 bytes a segment, nothing of the
kernel's own) there are ours, for names that people and their programs see:

- No control characters (Cc, U+2028, U+2029): they break terminals, logs and listings.
- No `..` between backslashes either. A backslash is an ordinary character here, but whoever unpacks
  an archive of the folder on Windows would be led out by it.
- New names are NFC. macOS says NFD of the same name; an item that lies there under such a name
  already is found by it (`found`).

A path is decoded once. `%2e%2e` in a path that was decoded is four harmless characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.names import InvalidName, check_path

from .refusals import FileRefusal, refusal_of

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BETWEEN_BACKSLASHES = re.compile(r"(?:^|[\\/])\.\.(?:[\\/]|$)")


def checked(path: str) -> str:
    """Return the path of an item, or of a folder other than the root, as a client said it.

    One `/` at its end, by which some say that they mean a folder, is left out.

    Raises:
        FileRefusal: 400, which rule it breaks.
    """
    path = path.removesuffix("/") if path != "/" else path
    if path == "":
        raise FileRefusal(400, "invalid-name", "a path is needed, such as 'data/a.txt'")
    if _CONTROL.search(path):
        raise FileRefusal(400, "invalid-name", f"the path holds a control character: {path!a}")
    if _BETWEEN_BACKSLASHES.search(path):
        raise FileRefusal(400, "invalid-name", f"the path leads out of the folder: {path!r}")
    try:
        return check_path(path)
    except InvalidName as error:
        raise refusal_of(error) from error


def checked_folder(path: str) -> str:
    """Like `checked`; the empty path, `.` and `/` name the folder itself, and become "".

    Raises:
        FileRefusal: as `checked`.
    """
    return "" if path in ("", ".", "/", "./") else checked(path)


def new(path: str) -> str:
    """Like `checked`, for a name that is to be given: NFC.

    Raises:
        FileRefusal: as `checked`.
    """
    return checked(normalised(checked(path)))


def normalised(path: str) -> str:
    """Return a path in NFC."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def found(path: str, exists: Callable[[str], bool]) -> str:
    """Return the name under which an item lies: as it was said, or else in NFC.

    Args:
        path: checked.
        exists: asked only where the two differ.
    """
    composed = normalised(path)
    return path if composed == path or exists(path) else composed


def lying(place: Backend, path: str) -> str:
    """Return the name under which something lies in a place that a client calls `path`."""
    return found(path, lambda name: place.info(name).exists) if path else path
