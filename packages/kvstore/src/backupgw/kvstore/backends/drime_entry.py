"""What Drime tells of a file or a folder."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pydrime.utils import calculate_drime_hash

from .errors import BackendError


class Entry(NamedTuple):
    """An entry of Drime's.

    `id` is unique for ever, and later ones are larger; `parent` is its folder's, 0 for the
    workspace's root. `size` is in bytes, `changed` in seconds
    since the epoch. `stored_as` is the name of its bytes in the storage. `whole` is False for an
    upload that Drime has not finished.
    """

    id: int
    name: str
    parent: int
    folder: bool
    size: int
    changed: float
    stored_as: str
    whole: bool

    @property
    def hash(self) -> str:
        """What downloads name it by."""
        return str(calculate_drime_hash(self.id))


class Page(NamedTuple):
    """A page of a listing.

    `size` is how many entries a full one has, and `last` says that nothing comes after it, where
    Drime says so.
    """

    entries: list[Entry]
    size: int
    last: bool


def entry_of(shown: object, what: str) -> Entry:
    """Return an entry as Drime shows it. Raises BackendError where it cannot be understood."""
    try:
        if not isinstance(shown, dict):
            raise TypeError("no entry")
        return Entry(
            id=int(shown["id"]),
            name=str(shown["name"]),
            parent=int(shown.get("parent_id") or 0),
            folder=shown.get("type") == "folder",
            size=int(shown.get("file_size") or 0),
            changed=_seconds(shown.get("updated_at") or shown.get("created_at")),
            stored_as=str(shown.get("file_name") or ""),
            whole=bool(shown.get("users", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"{what}: Drime's answer cannot be understood") from error


def _seconds(moment: object) -> float:
    if not isinstance(moment, str):
        return 0
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0
