"""The only place where a name is validated.

Two kinds of name reach a backend: Store keys (borgstore's strict rules, `check_key`) and paths
(UTF-8, for repositories, virtual folders and providers, `check_path`). Every key is a valid path.
Whatever passes here names something beneath the root of a place: no segment is empty, `.` or
`..`, and none lies in the part that the kernel keeps for itself.
"""

from __future__ import annotations

import re

RESERVED_PREFIX = ".backupgw"
"""No protocol reaches a name with a segment that starts like this: temporary files, trash and
quarantine live under such names."""

MAX_SEGMENT_BYTES = 255
"""NAME_MAX of every file system the kernel is used on."""

MAX_PATH_BYTES = 4000
"""Below PATH_MAX (4096), so that a temporary name beside the item still fits."""

MAX_KEY_LENGTH = 100
"""borgstore 0.7's limit, in characters."""


_PLAIN = re.compile(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254})*\Z", re.ASCII
)
"""Paths that break no rule at a glance: one match costs a third of the checks one by one."""


_PLAIN_KEY = re.compile(r"[a-z0-9_-]+(?:/[a-z0-9_-]+)*(?:\.del)?\Z", re.ASCII)
"""Store keys that break no rule at a glance: without a dot, but for the one of deleted items."""


KERNEL_MARGIN = 80
"""Bytes by which a `KernelPath` may be longer: still below PATH_MAX."""


class InvalidName(ValueError):
    """A name that no backend accepts; the message says which rule it breaks."""


class KernelPath(str):
    """A path that may lie in the part that the kernel keeps for itself.

    Only kernel code makes one, from what it knows and never from what a client said; text made
    from one (a slice, a sum) is an ordinary str and is refused again. Who passes a name on with
    something before it makes the result one of these too (`joined`).
    """

    __slots__ = ()


def joined(folder: str, name: str) -> str:
    """Return `folder/name`, which is the kernel's own path if one of the two is."""
    path = f"{folder}/{name}" if folder and name else folder or name
    kernel = isinstance(folder, KernelPath) or isinstance(name, KernelPath)
    return KernelPath(path) if kernel else path


def check_path(path: str) -> str:
    """Return `path` if it may name an item or a folder, else raise InvalidName.

    A path is one or more segments joined by `/`, each of at most 255 bytes of UTF-8. One in the
    kernel's own part has to be a `KernelPath`.
    """
    if not isinstance(path, str):
        raise TypeError(f"a name must be str, not {type(path).__name__}")
    if is_plain(path):
        return path
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"not valid Unicode: {path!a}") from None
    kernel = isinstance(path, KernelPath)
    if len(encoded) > MAX_PATH_BYTES + (KERNEL_MARGIN if kernel else 0):
        raise InvalidName(f"longer than {MAX_PATH_BYTES} bytes: {path[:60]!r}…")
    if "\0" in path:
        raise InvalidName(f"holds a NUL: {path!a}")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise InvalidName(f"has an empty, '.' or '..' segment: {path!r}")
        if len(segment) > MAX_SEGMENT_BYTES // 4 and len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise InvalidName(f"has a segment longer than {MAX_SEGMENT_BYTES} bytes: {path!r}")
        if segment.startswith(RESERVED_PREFIX) and not kernel:
            raise InvalidName(f"{RESERVED_PREFIX!r} names belong to the kernel: {path!r}")
    return path


def is_plain(path: str) -> bool:
    """Whether a path breaks no rule at a glance: letters and digits of ASCII, `.`, `_` and `-`.

    Nobody has to quote anything in it. False says nothing.
    """
    return len(path) <= MAX_PATH_BYTES and _PLAIN.match(path) is not None


def check_folder(path: str) -> str:
    """Like `check_path`, but the empty path, which names the root, is allowed."""
    return path if path == "" else check_path(path)


def check_key(key: str) -> str:
    """Return `key` if it follows borgstore's rules for Store keys, else raise InvalidName.

    The rules (shared with borgstore 0.7): at most 100 characters, ASCII, lower case, no blank, no
    backslash, no `..`, no leading or trailing `/`, no `.tmp` or `.hid` ending. Stricter than
    borgstore, which lets them through by mistake: no empty or `.` segment, no control character,
    no `?` or `#`, which its own REST protocol cannot carry.
    """
    if not isinstance(key, str):
        raise TypeError(f"a name must be str, not {type(key).__name__}")
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidName(f"longer than {MAX_KEY_LENGTH} characters: {key[:40]!r}…")
    if _PLAIN_KEY.match(key):
        return key
    if not key.isascii() or any(c <= " " or c == "\x7f" or c in "\\?#" for c in key):
        raise InvalidName(f"holds a blank, a backslash, ?, # or a non-ASCII character: {key!a}")
    if key != key.lower():
        raise InvalidName(f"holds an upper-case letter: {key!r}")
    if ".." in key:
        raise InvalidName(f"holds '..': {key!r}")
    if key.endswith((".tmp", ".hid")):
        raise InvalidName(f"ends in .tmp or .hid: {key!r}")
    return check_path(key)


def is_nameable(segment: str) -> bool:
    """Whether a client could name what others have called so: one segment, and a decent one."""
    try:
        check_path(segment)
    except InvalidName:
        return False
    return "/" not in segment


def is_reserved(segment: str) -> bool:
    """Whether a folder entry belongs to the kernel and must never be listed."""
    return segment.startswith(RESERVED_PREFIX)
