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

SIZE = 512 << 10
"""Bytes: SQLite's files beside its own, and what is written as a trash is emptied."""

_LEAST_FREE = 16 * SIZE
"""Bytes that must be free for the room to be taken: what was given up is not taken again at once
from whoever is opening the file, too."""


def hold(path: str) -> None:
    """Take the room, unless it is held already or there is little."""
    file = _file(path)
    if os.path.exists(file):
        return
    try:
        status = os.statvfs(os.path.dirname(os.path.abspath(path)))
        if status.f_bavail * status.f_frsize < _LEAST_FREE:
            return
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        logger.debug("no spare room for %s: %s", path, error)
        return
    try:
        # No zeros, which some file systems do not store.
        os.write(made, os.urandom(SIZE))
    except OSError as error:
        logger.debug("no spare room for %s: %s", path, error)
        give_up(path)
    finally:
        os.close(made)


def give_up(path: str) -> None:
    """Let go of the room, if it is held."""
    with contextlib.suppress(OSError):
        os.unlink(_file(path))


def _file(path: str) -> str:
    return f"{path}-room"
