"""The folder that a local place is: made, removed, and what it says of its file system."""

from __future__ import annotations

import errno
import os
import shutil

from .posixfs_naming import Modes

_STAYS = {errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}
"""What rmdir(2) says of a mount point, and of a folder in one that belongs to somebody else."""


def make_root(path: str, modes: Modes, *, sync: bool) -> None:
    """Make the folder of a place, durably, with those above it. Raises OSError.

    Those above are nobody's in particular and get what the umask leaves them; one that exists
    keeps its modes.
    """
    path = os.path.abspath(path)
    missing = []
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        os.makedirs(folder, exist_ok=True)  # somebody else may be making it, too
    try:
        os.mkdir(path, modes.folder)
        if modes.folder & 0o077:
            os.chmod(path, modes.folder)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    if sync:
        for folder in (*missing, above):
            _sync_path(folder)


def _sync_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_root(path: str) -> None:
    """Remove the folder of a place with all it holds. One that cannot be removed itself stays,
    empty. Raises OSError."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno not in _STAYS or not is_empty(path):
            raise


def is_empty(path: str) -> bool:
    """Whether a folder holds nothing. Raises OSError."""
    with os.scandir(path) as entries:
        return next(entries, None) is None


def ignores_case(path: str) -> bool:
    """Whether the folder is found under its name in the other case too."""
    swapped = os.path.join(os.path.dirname(path), os.path.basename(path).swapcase())
    try:
        return swapped != path and os.path.samefile(path, swapped)
    except OSError:
        return False
