"""Items of a local place that get another name: moved, or set aside as damaged."""

from __future__ import annotations

import errno
import os
import secrets
import time

from . import posixfs_naming as naming
from .errors import BackendError
from .posixfs_errors import translate
from .posixfs_folders import Folders

_QUARANTINE = ".backupgw-quarantine"


def move(
    folders: Folders, name: str, new_name: str, rename: naming.Rename, *, ignores_case: bool
) -> None:
    """Give an item another name, durably; `rename` says what becomes of one that has it.

    Raises:
        BackendError: it cannot be done.
    """
    parent, _, segment = new_name.rpartition("/")
    try:
        target = folders.make(parent)
    except OSError as error:
        raise translate(error, new_name) from error
    try:
        if ignores_case:
            naming.refuse_case_collision(target, segment)
        with folders.parent(name) as (source, old_segment):
            _rename(folders, source, old_segment, target, segment, name, rename)
    finally:
        os.close(target)


def quarantine(folders: Folders, name: str) -> str:
    """Move an item to where no protocol reaches it; return where. Raises BackendError."""
    parent, _, segment = name.rpartition("/")
    stamp = f"{int(time.time())}-{secrets.token_hex(4)}"
    kept = f"{_QUARANTINE}/{parent}" if parent else _QUARANTINE
    try:
        target = folders.make(kept)
    except OSError as error:
        raise translate(error, kept) from error
    try:
        with folders.parent(name) as (source, old):
            new = f"{segment[:200]}.{stamp}"
            try:
                _rename(folders, source, old, target, new, name)
            except BackendError as error:
                cause = error.__cause__
                if not (isinstance(cause, OSError) and cause.errno == errno.EXDEV):
                    raise
                # A followed link leads to another file system: keep it beside its old place.
                new = f"{_QUARANTINE}-{new}"
                _rename(folders, source, old, source, new, name)
                kept = parent
    finally:
        os.close(target)
    return f"{kept}/{new}" if kept else new


def _rename(
    folders: Folders,
    source: int,
    old: str,
    target: int,
    new: str,
    name: str,
    rename: naming.Rename = os.rename,
) -> None:
    try:
        rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        folders.sync(target)
        folders.sync(source)
    except IsADirectoryError as error:
        raise BackendError(f"{new} is a folder") from error
    except OSError as error:
        raise translate(error, name) from error
