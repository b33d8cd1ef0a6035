"""What of a folder of this machine a provider has: folder by folder, in memory for one of them.

Symbolic links and special files are no files here, and are told as skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.names import InvalidName, check_path, joined
from backupgw.kvstore.walking import walk

from .transfers import file_error


class Finding(StrEnum):
    """How a file stands."""

    SAME = "same"
    """There, with the same size, stored after it was last changed."""
    MISSING = "missing"
    DIFFERENT = "different"
    """There, with another size, or not stored after it was last changed."""
    EXTRA = "extra"
    """Only there."""
    SKIPPED = "skipped"
    """No file: a symbolic link, a socket."""
    UNREADABLE = "unreadable"
    """A folder of this machine that cannot be listed, or a name that cannot be stored."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, by its name at the provider. `path` is None for what is only there.

    Attributes:
        unsure: times alone do not tell whether it is different.
    """

    finding: Finding
    name: str
    path: Path | None
    size: int = 0
    note: str = ""
    unsure: bool = False


def compared(place: Backend, local: Path, folder: str) -> Iterator[Found]:
    """Yield how each file stands: those of `local` and those in `folder`.

    Raises:
        BackendError: the place cannot be listed, or `local` cannot.
    """
    try:
        entries = _scan(local)
    except OSError as error:
        raise file_error(error) from error
    there = _listed(place, folder)
    folders: list[os.DirEntry[str]] = []
    for entry in entries:
        name = joined(folder, entry.name)
        try:
            check_path(name)
        except InvalidName as error:
            yield Found(Finding.UNREADABLE, name, Path(entry.path), note=f"its name {error}")
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            elif not entry.is_file(follow_symlinks=False):
                yield Found(Finding.SKIPPED, name, Path(entry.path), note="is no file")
            else:
                status = entry.stat(follow_symlinks=False)
                yield _one(name, entry, status, there.pop(entry.name, None))
        except FileNotFoundError:
            continue  # it went meanwhile
    for entry in folders:
        there.pop(entry.name, None)
        try:
            yield from compared(place, Path(entry.path), joined(folder, entry.name))
        except BackendError as error:
            if not isinstance(error.__cause__, OSError) or error.retryable:
                raise
            name = joined(folder, entry.name)
            yield Found(Finding.UNREADABLE, name, Path(entry.path), note=str(error))
    for name, info in there.items():
        yield from _extra(place, joined(folder, name), info)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _listed(place: Backend, folder: str) -> dict[str, ItemInfo]:
    try:
        return {info.name: info for info in place.list(folder)}
    except ObjectNotFound:
        if folder == "":
            raise
        return {}


def _one(
    name: str, entry: os.DirEntry[str], status: os.stat_result, there: ItemInfo | None
) -> Found:
    path, size = Path(entry.path), status.st_size
    if there is None:
        return Found(Finding.MISSING, name, path, size)
    if there.directory:
        return Found(Finding.UNREADABLE, name, path, size, "is a folder there")
    if there.size != size:
        return Found(Finding.DIFFERENT, name, path, size, f"{there.size} bytes there, {size} here")
    if there.mtime and there.mtime <= status.st_mtime:
        # Some places tell whole seconds only, and the kernel's clock stands still for milliseconds.
        until = there.mtime + (0.0 if there.mtime % 1 else 1.0)
        unsure = status.st_mtime == there.mtime or status.st_mtime < until
        note = f"was changed {'when' if unsure else 'after'} it was stored"
        return Found(Finding.DIFFERENT, name, path, size, note, unsure)
    return Found(Finding.SAME, name, path, size)


def _extra(place: Backend, name: str, info: ItemInfo) -> Iterator[Found]:
    if not info.directory:
        yield Found(Finding.EXTRA, name, None, info.size)
        return
    for found in walk(place, name):
        if not found.info.directory:
            yield Found(Finding.EXTRA, found.path, None, found.info.size)
