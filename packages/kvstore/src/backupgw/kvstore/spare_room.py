"""Room on the disk that a database of SQLite holds for the day on which the disk is full.

SQLite opens none where there is no room, and without its ledger or the gateway's own state nothing
of a place can be served, read or thrown away. So what meets a full disk as it is opened gives its
spare room up and is opened in that.
"""

from __future__ import annotations

import contextlib
import logging
import os

logger = logging.getLogger(__name__)

SIZE = 6 << 20
"""Bytes: SQLite's files beside its own, and what is written as a place is counted or a trash
emptied."""

_LEAST_FREE = 2 * SIZE
"""Bytes that must be free for the room to be taken: what was given up is not taken again at once
from whoever is opening the file, too."""


def hold(path: str) -> None:
    """Take the room, unless it is held already or there is little."""
    file, folder = _file(path), os.path.dirname(os.path.abspath(path))
    if os.path.exists(file):
        return
    try:
        if _free(folder) < _LEAST_FREE:
            return
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        logger.debug("no spare room for %s: %s", path, error)
        return
    try:
        if os.geteuid() == 0:
            owner = os.stat(folder)
            os.fchown(made, owner.st_uid, owner.st_gid)
        os.posix_fallocate(made, 0, SIZE)
    except OSError as error:
        logger.debug("no spare room for %s: %s", path, error)
        give_up(path)
    finally:
        os.close(made)


def is_scarce(path: str) -> bool:
    """Whether there is so little room that what is not needed should not be taken."""
    try:
        return _free(os.path.dirname(os.path.abspath(path))) < _LEAST_FREE
    except OSError:
        return False  # whoever opens the file will be told


def give_up_where_full(path: str) -> None:
    """Let go of the room where there is less than it beside it: what is opened there may run out of
    room a moment later."""
    try:
        free = _free(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return  # whoever opens the file will be told
    if free < SIZE:
        give_up(path)


def give_up(path: str) -> None:
    """Let go of the room, if it is held."""
    with contextlib.suppress(OSError):
        os.unlink(_file(path))


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _file(path: str) -> str:
    return f"{path}-room"
