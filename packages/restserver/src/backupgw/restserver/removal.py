"""Removing a whole repository, in steps: the config first, so that from then on it is none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import islice

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound

from .paths import TYPES, Kind, Target, object_name
from .repositories import delete_object, list_objects

log = logging.getLogger(__name__)

STALE = 1800.0
"""Seconds after which restic takes a lock for a dead client's; a living one renews it every 300."""
_STEP = 100
"""Objects removed at a time."""


class InUse(Exception):
    """A client has locked the repository."""


def removal(backend: Backend, repo: str, user: str | None = None) -> Iterator[int]:
    """Yield how many objects each step removed; each `next` blocks for a moment.

    Broken off at any point, it can be begun again.

    Args:
        user: on whose behalf; a trash will name them.

    Raises:
        ObjectNotFound: there is no such repository; nothing was removed.
        InUse: it is locked; nothing was removed.
        BackendError: the place failed; some of it may be removed.
    """
    base = f"{repo}/" if repo else ""
    config = f"{base}config"
    if not any(backend.info(f"{base}{part}").exists for part in ("config", *TYPES)):
        raise ObjectNotFound(repo)
    _refuse_locked(backend, repo)
    yield _remove(backend, [config], user)
    for kind in TYPES:
        folder = f"{base}{kind}"
        target = Target(Kind.LISTING, repo, kind, "", folder)
        # Begun anew for each step: a listing need not bear removals in its midst.
        while names := _names(backend, target):
            yield _remove(backend, names, user)
        subfolders = _folders(backend, folder) if kind == "data" else []
        yield _remove_folders(backend, [*(f"{folder}/{name}" for name in subfolders), folder])
    if repo:
        _remove_folders(backend, [repo])


def _refuse_locked(backend: Backend, repo: str) -> None:
    folder = f"{repo}/locks" if repo else "locks"
    try:
        for lock in list_objects(backend, Target(Kind.LISTING, repo, "locks", "", folder)):
            age = time.time() - lock.mtime if lock.mtime else 0.0
            if age < STALE:
                raise InUse(
                    f"it is locked since {max(age, 0):.0f} s; wait for the client, or use: "
                    "restic unlock --remove-all"
                )
    except ObjectNotFound:
        return


def _names(backend: Backend, target: Target) -> list[str]:
    try:
        items = list(islice(list_objects(backend, target), _STEP))
    except ObjectNotFound:
        return []
    return [object_name(target.name, target.type, item.name) for item in items]


def _folders(backend: Backend, folder: str) -> list[str]:
    try:
        return [item.name for item in backend.list(folder) if item.directory]
    except ObjectNotFound:
        return []


def _remove(backend: Backend, names: list[str], user: str | None) -> int:
    removed = 0
    for name in names:
        try:
            delete_object(backend, name, user)
            removed += 1
        except ObjectNotFound:
            continue
    return removed


def _remove_folders(backend: Backend, names: list[str]) -> int:
    for name in names:
        try:
            backend.rmdir(name)
        except ObjectNotFound:
            continue
        except BackendError as error:
            # Another repository below it, or files that are not restic's: they stay.
            log.info("the folder %s stays: %s", name, error)
    return 0
