"""What is in a folder of a local place: its items and folders, and nothing else that lies there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from ..names import is_reserved
from .base import ItemInfo
from .beneath import Beneath
from .posixfs_ahead import looked_at
from .posixfs_errors import translate
from .posixfs_leftovers import STALE_AGE, reap_entry
from .posixfs_reader import item_info

_new_tuple = tuple.__new__  # a third of what it costs by the record's own constructor


def entries(root: Beneath, name: str) -> Iterator[ItemInfo]:
    """Yield what a folder holds, as `Backend.list` has it."""
    folder = -1
    try:
        folder = root.open_folder(name)
        with os.scandir(folder) as found:
            for entry in looked_at(found):
                segment = entry.name
                if segment[0] == "." and is_reserved(segment):
                    reap_entry(folder, segment, time.time(), STALE_AGE)
                    continue
                if not segment.isascii() and not _is_unicode(segment):
                    continue  # no name could address it
                try:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISLNK(status.st_mode) and root.follows(folder, segment):
                        status = entry.stat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):  # what nearly all are, a million times
                    yield _new_tuple(
                        ItemInfo,
                        (
                            segment,
                            True,
                            status.st_size,
                            False,
                            status.st_atime,
                            status.st_mtime,
                        ),
                    )
                    continue
                info = item_info(segment, status)
                if info is not None:
                    yield info
    except OSError as error:
        raise translate(error, name) from error
    finally:
        if folder >= 0:
            os.close(folder)


def sizes(root: Beneath, name: str) -> Iterator[tuple[str, int]]:
    """Yield the items of a folder, as `Backend.list_sizes` has it."""
    folder = -1
    is_file = stat.S_ISREG
    try:
        folder = root.open_folder(name)
        with os.scandir(folder) as found:
            for entry in found:
                segment = entry.name
                if segment[0] == "." and is_reserved(segment):
                    reap_entry(folder, segment, time.time(), STALE_AGE)
                    continue
                if not segment.isascii() and not _is_unicode(segment):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if is_file(status.st_mode):
                        yield segment, status.st_size
                    elif stat.S_ISLNK(status.st_mode) and root.follows(folder, segment):
                        status = entry.stat()
                        if is_file(status.st_mode):
                            yield segment, status.st_size
                except FileNotFoundError:
                    continue
    except OSError as error:
        raise translate(error, name) from error
    finally:
        if folder >= 0:
            os.close(folder)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
