"""What writers that died left in a folder: recognised by name, removed by age."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from ..names import RESERVED_PREFIX, is_reserved
from .beneath import Beneath

TEMPORARY = f"{RESERVED_PREFIX}-tmp-"
"""How the name of a value begins that is being written."""

PART = f"{RESERVED_PREFIX}-part-"
"""How the name of a checkpoint begins."""

STALE_AGE = 24 * 3600.0
"""Seconds without a write after which a temporary file's writer is taken for dead."""

PART_AGE = 14 * 24 * 3600.0
"""Seconds after which a checkpoint that nobody resumed is removed."""


def reap_below(root: Beneath, older_than: float) -> int:
    """Remove leftovers everywhere below the root; return how many. Raises OSError."""
    return sum(_reap_folder(root, "", time.time(), older_than))


def _reap_folder(root: Beneath, name: str, now: float, older_than: float) -> Iterator[int]:
    folder = root.open_folder(name)
    deeper = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_reserved(entry.name):
                    yield reap_entry(folder, entry.name, now, older_than)
                elif entry.is_dir(follow_symlinks=False):
                    deeper.append(f"{name}/{entry.name}" if name else entry.name)
    finally:
        os.close(folder)
    for below in deeper:
        yield from _reap_folder(root, below, now, older_than)


def reap_entry(folder: int, name: str, now: float, older_than: float) -> int:
    """Remove the temporary file `name` if its writer is dead; return how many were removed."""
    if name.startswith(PART):
        older_than = max(older_than, PART_AGE)
    elif not name.startswith(TEMPORARY):
        return 0  # quarantine, trash: not ours to clear
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or now - status.st_mtime < older_than:
            return 0
        os.unlink(name, dir_fd=folder)
    except OSError:
        return 0  # vanished, or not ours to remove: the next one to look will see
    return 1
