"""Who may read a folder, remembered in the cache that gateways share (`[vfs.cache] url`).

A request that reads asks the cache once instead of the database several times. What is remembered
is a folder with its shares (`vfolder:ID:meta`) and what a user is (`user:NAME:perms`). Beside each
lies a version (`vfolder:ID:version`, `user:NAME:version`), which every change replaces once it is
committed; a value is believed only with the version that was there before it was read, so one that
was read before a change and written after it counts for nothing. Where telling the cache fails, or
the gateway ends before it can, `TTL` ends it.

Whatever changes a folder's content asks the database, always: nobody writes by a permission that
was withdrawn. A cache that other gateways do not see is not used.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from backupgw.runtime.cache import Cache
from backupgw.runtime.cache.base import Json

from .people import Standing
from .records import Folder, Holder, Kind, Limits, Permission, Share, Status

TTL = 5.0
"""Seconds that anything is believed at most."""
_VERSIONS = 3600.0
"""Seconds that a version is kept: much longer than what it belongs to."""
_VALUES = {"vfolder": "meta", "user": "perms"}
MOST_SHARES = 200
"""Of a folder that is remembered; one with more is looked up each time."""


@dataclass(frozen=True)
class Known:
    """What the cache had, and the versions that what is missing is to be written with."""

    folder: Folder | None
    shares: list[Share]
    standing: Standing | None
    folder_version: str
    user_version: str


class Remembered:
    """For any thread.

    Args:
        cache: one that all gateways share.
    """

    def __init__(self, cache: Cache, ttl: float = TTL) -> None:
        self._cache = cache
        self._ttl = ttl

    def find(self, folder_id: str, user: str) -> Known:
        """Return what is known of a folder and of a user."""
        asked = [f"vfolder:{folder_id}", f"user:{user}"]
        folder_version, user_version, folder, standing = self._cache.get_many(
            [*(f"{name}:version" for name in asked), f"{asked[0]}:meta", f"{asked[1]}:perms"]
        )
        versions = str(folder_version or ""), str(user_version or "")
        found = _current(folder, versions[0])
        known = _current(standing, versions[1])
        try:
            return Known(
                None if found is None else _folder(found["folder"]),
                [] if found is None else [_share(folder_id, each) for each in found["shares"]],
                None if known is None else Standing(**known["standing"]),
                *versions,
            )
        except (KeyError, TypeError, ValueError):
            return Known(None, [], None, *versions)  # another release's

    def keep_folder(self, known: Known, folder: Folder, shares: list[Share]) -> None:
        """Remember a folder that was read after `find`."""
        if len(shares) <= MOST_SHARES:
            value: dict[str, Any] = {"version": known.folder_version, "folder": asdict(folder)}
            value["shares"] = [
                [each.subject.kind, each.subject.name, each.permission, each.created, each.creator]
                for each in shares
            ]
            self._cache.set(f"vfolder:{folder.id}:meta", value, self._ttl)

    def keep_standing(self, known: Known, standing: Standing) -> None:
        """Remember what a user is, that was read after `find`."""
        value: dict[str, Json] = {"version": known.user_version, "standing": asdict(standing)}
        self._cache.set(f"user:{standing.user}:perms", value, self._ttl)

    def forget(self, changed: Iterable[str]) -> None:
        """Let go of folders and users that have changed; told by the database."""
        for name in changed:
            kind = name.partition(":")[0]
            if kind in _VALUES:
                self._cache.set(f"{name}:version", uuid.uuid4().hex, _VERSIONS)
                self._cache.delete(f"{name}:{_VALUES[kind]}")


def shared_by(shares: Iterable[Share], standing: Standing) -> Permission | None:
    """Return the most that shares give a user; None where they give nothing."""
    found = [
        each.permission
        for each in shares
        if (
            each.subject.name in standing.groups
            if each.subject.kind is Kind.GROUP
            else each.subject.name == standing.user
        )
    ]
    return max(found, key=lambda permission: permission.rank, default=None)


def _current(value: Json, version: str) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and value.get("version") == version else None


def _folder(told: dict[str, Any]) -> Folder:
    return Folder(
        **{
            **told,
            "holder": Holder(Kind(told["holder"]["kind"]), told["holder"]["name"]),
            "status": Status(told["status"]),
            "group_permission": Permission(told["group_permission"]),
            "limits": Limits(**told["limits"]),
        }
    )


def _share(folder_id: str, told: list[Any]) -> Share:
    kind, name, permission, created, creator = told
    return Share(folder_id, Holder(Kind(kind), name), Permission(permission), created, creator)
