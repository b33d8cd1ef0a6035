"""Names in a folder: given unless taken, and folders that come into being durably."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import Protocol

from .beneath import rename_noreplace
from .errors import NameCollision

NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""What link(2) says where a file cannot have a second name."""

_NO_RENAME = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What renameat2(2) says where the file system or the kernel does not know the flag."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Permission bits of new files and folders."""

    file: int
    folder: int


class Rename(Protocol):
    """os.rename, or something that does its work differently."""

    def __call__(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None: ...


def rename_or_link(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename unless `dst` exists. Raises FileExistsError, and OSError as os.rename does."""
    try:
        rename_noreplace(src_dir_fd, src, dst, target_folder=dst_dir_fd)
        return
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
    try:
        os.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        _rename_locked(src_dir_fd, src, dst_dir_fd, dst)
    else:
        os.unlink(src, dir_fd=src_dir_fd)


def rename_new(folder: int, source: str, target: str) -> None:
    """Rename unless `target` exists, on file systems that have no hard links."""
    try:
        rename_noreplace(folder, source, target)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        _rename_locked(folder, source, folder, target)


def _rename_locked(source_folder: int, source: str, target_folder: int, target: str) -> None:
    """Rename unless `target` exists, where nothing does that in one step: a lock on the folder
    makes it atomic among this machine's gateways."""
    fcntl.flock(target_folder, fcntl.LOCK_EX)
    try:
        try:
            os.stat(target, dir_fd=target_folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    finally:
        fcntl.flock(target_folder, fcntl.LOCK_UN)


def make_folder(parent: int, segment: str, modes: Modes, *, sync: bool) -> None:
    """Make one folder, durably; one that exists is fine. Raises OSError."""
    try:
        os.mkdir(segment, modes.folder, dir_fd=parent)
        if modes.folder & 0o077:
            os.chmod(segment, modes.folder, dir_fd=parent)
    except FileExistsError:
        pass  # made by somebody else just now, who may not have synced it yet
    if sync:
        os.fsync(parent)


def refuse_case_collision(folder: int, segment: str) -> None:
    """On a file system that ignores case, refuse a name that would meet another item.

    Raises:
        NameCollision: an entry differs from `segment` only in case.
    """
    try:
        os.stat(segment, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.casefold() == segment.casefold()]
    if names and segment not in names:
        raise NameCollision(f"{segment} differs only in case from {names[0]}")
