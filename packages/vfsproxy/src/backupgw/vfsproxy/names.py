"""How volumes, users, groups, folders and snapshots may be called. Files are `kvstore.names`'."""

from __future__ import annotations

import re
import unicodedata
import uuid

VOLUME_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
SUBJECT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,126}[A-Za-z0-9_])?")
"""Users and groups. They become part of a path and of an account's name."""

LONGEST_NAME = 64
"""Characters of a folder's or snapshot's name; they are mounted under it."""
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\ud800-\udfff]')


class BadName(ValueError):
    """A name that nothing can have here; the message says which rule it breaks."""


def folder_name(text: str) -> str:
    """Return a folder's or snapshot's name in NFC.

    Raises:
        BadName: it is empty or too long, has a slash, a control character or what another system
            gives a meaning, begins or ends with a blank, or begins with a dot.
    """
    name = unicodedata.normalize("NFC", text)
    if not 0 < len(name) <= LONGEST_NAME or len(name.encode(errors="replace")) > 255:
        raise BadName(f"a name has 1 to {LONGEST_NAME} characters")
    if found := _FORBIDDEN.search(name):
        raise BadName(f"a name cannot hold {found[0]!a}")
    if name != name.strip() or name.startswith("."):
        raise BadName("a name begins with no dot, and neither begins nor ends with a blank")
    return name


def subject_name(text: str) -> str:
    """Return a user's or group's name. Raises BadName."""
    if not SUBJECT_NAME.fullmatch(text):
        raise BadName(
            f"{text[:80]!a} is no name of a user or group: letters, digits and . _ @ + -, at most "
            "128, beginning with a letter or digit"
        )
    return text


def folder_id(text: str) -> str:
    """Return a folder's id as 32 hexadecimal digits; hyphens are fine. Raises BadName."""
    try:
        if len(text) not in (32, 36):
            raise ValueError
        return uuid.UUID(text).hex
    except ValueError:
        raise BadName("a folder's id has 32 hexadecimal digits") from None
