"""A tar.gz taken apart into a folder: nothing of it is written anywhere else.

What an archive says is believed only as far as it stays inside. Its paths are followed one name at
a time below the folder, never through a link, whether the archive has brought the link or it was
there before. Rights are cut to the plain ones, owners are set by the caller, and devices, pipes and
sockets are left out. An archive may say to be small and unpack to terabytes: there is a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .archive import ArchiveError, Progress, Tell, nobody
from .archive_members import (
    ANY,
    Limits,
    Source,
    can_be_unpacked,
    members,
    moment_of,
    names_of,
    split_path,
)
from .extended_attributes import attributes_of, set_attributes
from .server_tree import FOLDER


@dataclass(frozen=True)
class Content:
    """What an archive holds: entries of every kind, and the bytes of its files.

    Attributes:
        left_out: entries that are no files, folders or links.
        bare: extended attributes that the file system did not take.
    """

    entries: int
    content: int
    left_out: int = 0
    bare: int = 0


def inspect_archive(
    source: Source,
    *,
    wanted: Callable[[Sequence[bytes]], bool] = lambda _: True,
    limits: Limits = ANY,
    tell: Tell = nobody,
) -> Content:
    """Read an archive to its end, checksum and all, and write nothing.

    Returns:
        What `extract_archive` would unpack.

    Raises:
        ArchiveError: it is damaged, unsafe, or holds more than the limits allow.
    """
    entries = content = left_out = 0
    progress = Progress()
    for info, body in members(source, limits):
        names = names_of(info)
        if names and wanted(names):
            if can_be_unpacked(info):
                entries += 1
                content += info.size if info.isreg() else 0
            else:
                left_out += 1
        for piece in body:
            progress.bytes += len(piece)
            tell(progress)
        progress.files += info.isreg()
    return Content(entries, content, left_out)


def extract_archive(
    source: Source,
    folder: int,
    *,
    owner: tuple[int, int] | None,
    wanted: Callable[[Sequence[bytes]], bool] = lambda _: True,
    limits: Limits = ANY,
    tell: Tell = nobody,
    packed: bool = True,
    below: Sequence[bytes] = (),
) -> Content:
    """Unpack an archive into a folder.

    Args:
        source: the archive.
        folder: descriptor of the folder; what is in it and in the archive's way is replaced.
        owner: user and group of all that is written; None leaves it to whoever we are.
        wanted: whether the entry of these names is to be unpacked.
        limits: where to stop.
        tell: called often; what it raises ends the work.
        packed: whether it is compressed by gzip; if not, whether it is whole is for the caller to
            find out, since a tar file may end after any entry.
        below: names that all paths begin with, which are cut off; what has others is left out.

    Raises:
        ArchiveError: the archive is damaged or unsafe, or holds too much. What was unpacked before
            is there.
        OSError: the folder cannot be written (ENOSPC where it is full).
    """
    entries = members(source, limits, packed=packed)
    return _Unpacking(folder, owner, tell).run(entries, wanted, tuple(below))


class _Last(NamedTuple):
    """What a folder gets when all that is in it is there."""

    names: tuple[bytes, ...]
    moment: int
    mode: int
    attributes: list[tuple[bytes, bytes]]


class _Unpacking:
    def __init__(self, folder: int, owner: tuple[int, int] | None, tell: Tell) -> None:
        self._folder = folder
        self._owner = owner
        self._tell = tell
        self._progress = Progress()
        self._folders: list[_Last] = []
        self._bare = 0
        self._parent: tuple[bytes, ...] = ()
        self._parent_fd = -1

    def run(
        self,
        found: Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]],
        wanted: Callable[[Sequence[bytes]], bool],
        below: tuple[bytes, ...],
    ) -> Content:
        entries = content = left_out = 0
        try:
            for info, body in found:
                names = names_of(info)
                if names[: len(below)] != below:
                    continue
                names = names[len(below) :]
                if not names or not wanted(names):
                    continue
                if not can_be_unpacked(info):
                    left_out += 1
                    continue
                entries += 1
                content += info.size if info.isreg() else 0
                self._put(info, names, body)
        finally:
            self._leave()
        for last in reversed(self._folders):
            self._finish_folder(last)
        return Content(entries, content, left_out, self._bare)

    def _put(self, info: tarfile.TarInfo, names: tuple[bytes, ...], body: Iterator[bytes]) -> None:
        parent = self._enter(names[:-1])
        name = names[-1]
        if info.isdir():
            self._make_folder(parent, name)
            last = _Last(names, moment_of(info), info.mode & 0o777, attributes_of(info))
            self._folders.append(last)
        elif info.issym():
            self._make_room(parent, name)
            target = info.linkname.encode(errors="surrogateescape")
            if not target or b"\0" in target:
                raise ArchiveError(f"{_shown(names)} is a link to nothing")
            os.symlink(target, name, dir_fd=parent)
            self._own_link(parent, name, moment_of(info))
        elif info.islnk():
            self._link(info, parent, name)
        else:
            self._write(info, parent, name, body)
        self._tell(self._progress)

    def _write(
        self, info: tarfile.TarInfo, parent: int, name: bytes, body: Iterator[bytes]
    ) -> None:
        self._make_room(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            for piece in body:
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
                self._progress.bytes += len(piece)
                self._tell(self._progress)
            if self._owner is not None:
                os.fchown(descriptor, *self._owner)
            os.fchmod(descriptor, info.mode & 0o777)
            self._bare += set_attributes(descriptor, attributes_of(info))
            _set_time(descriptor, moment_of(info))
        finally:
            os.close(descriptor)
        self._progress.files += 1

    def _link(self, info: tarfile.TarInfo, parent: int, name: bytes) -> None:
        target = split_path(info.linkname)
        if not target:
            raise ArchiveError(f"{info.name!r} is a link to the whole folder")
        holder = self._open(target[:-1])
        try:
            self._make_room(parent, name)
            os.link(target[-1], name, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as error:
            raise ArchiveError(f"{info.name!r} is a link to what is not in the archive") from error
        finally:
            os.close(holder)

    def _own_link(self, parent: int, name: bytes, moment: int) -> None:
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)
        with contextlib.suppress(OverflowError, OSError):
            os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _make_room(self, parent: int, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                shown = name.decode(errors="backslashreplace")
                raise ArchiveError(f"{shown} is a folder, and no folder in the archive") from error

    def _make_folder(self, parent: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            try:
                os.close(os.open(name, FOLDER, dir_fd=parent))
                return
            except NotADirectoryError:  # a file, or a link wherever it leads
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)

    def _finish_folder(self, last: _Last) -> None:
        try:
            descriptor = self._open(last.names)
        except ArchiveError:
            return  # a later entry took its place
        try:
            os.fchmod(descriptor, last.mode)
            self._bare += set_attributes(descriptor, last.attributes)
            _set_time(descriptor, last.moment)
        finally:
            os.close(descriptor)

    def _enter(self, names: tuple[bytes, ...]) -> int:
        """Return a descriptor of a folder, which is made where it is missing; kept for the next."""
        if self._parent_fd >= 0 and names == self._parent:
            return self._parent_fd
        self._leave()
        descriptor = os.dup(self._folder)
        for name in names:
            above = descriptor
            try:
                descriptor = self._step(above, name, names)
            finally:
                os.close(above)
        self._parent, self._parent_fd = names, descriptor
        return descriptor

    def _step(self, above: int, name: bytes, names: Sequence[bytes]) -> int:
        try:
            return os.open(name, FOLDER, dir_fd=above)
        except FileNotFoundError:
            self._make_folder(above, name)
            return os.open(name, FOLDER, dir_fd=above)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise _through(names) from error

    def _open(self, names: Sequence[bytes]) -> int:
        descriptor = os.dup(self._folder)
        for name in names:
            above = descriptor
            try:
                descriptor = os.open(name, FOLDER, dir_fd=above)
            except OSError as error:
                raise _through(names) from error
            finally:
                os.close(above)
        return descriptor

    def _leave(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent_fd = -1


def _through(names: Sequence[bytes]) -> ArchiveError:
    return ArchiveError(f"{_shown(names)} does not lead through folders alone")


def _shown(names: Sequence[bytes]) -> str:
    return b"/".join(names).decode(errors="backslashreplace")


def _set_time(descriptor: int, moment: int) -> None:
    with contextlib.suppress(OverflowError, OSError):
        os.utime(descriptor, ns=(moment, moment))
