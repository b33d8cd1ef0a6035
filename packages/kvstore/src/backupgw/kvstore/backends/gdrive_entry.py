"""What Google Drive tells of a file or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from .errors import BackendError

FOLDER = "application/vnd.google-apps.folder"
_NO_FILE = "application/vnd.google-apps."
"""How the type begins of what has no bytes: folders, shortcuts, documents of Google's own."""

LISTED = "id,name,mimeType,size,createdTime,modifiedTime"
"""What a list tells of each: as little as can be, for there are many."""

FIELDS = f"{LISTED},parents,trashed"


class Entry(NamedTuple):
    """An entry.

    `rank` orders entries of one name: the lowest counts, for everybody. `size` is in bytes,
    `changed` in seconds since the epoch. `item` is False for what has no bytes to be read.
    `trashed` is what lies in the trash, by itself (`discarded`) or with a folder around it.
    """

    id: str
    name: str
    parent: str
    folder: bool
    item: bool
    size: int
    changed: float
    rank: str
    trashed: bool
    discarded: bool


def entry_of(shown: Mapping[str, Any], what: str) -> Entry:
    """Return an entry as Drive shows it. Raises BackendError where it cannot be understood."""
    try:
        kind = str(shown.get("mimeType") or "")
        return Entry(
            id=str(shown["id"]),
            name=str(shown["name"]),
            parent=str((shown.get("parents") or [""])[0]),
            folder=kind == FOLDER,
            item=not kind.startswith(_NO_FILE),
            size=int(shown.get("size") or 0),
            changed=_seconds(shown.get("modifiedTime")),
            rank=f"{shown.get('createdTime', '')} {shown['id']}",
            trashed=bool(shown.get("trashed")),
            discarded=bool(shown.get("explicitlyTrashed")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"{what}: Google Drive's answer cannot be understood") from error


def _seconds(moment: object) -> float:
    if not isinstance(moment, str):
        return 0.0
    return datetime.fromisoformat(moment).timestamp()
