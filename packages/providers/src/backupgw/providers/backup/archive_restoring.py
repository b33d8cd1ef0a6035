"""Files out of an archive, whole or by pattern, into a folder and nowhere else.

Every name is opened below the target's descriptor without following a symbolic link, whether the
archive brought it or it was there before. A file gets its name once it is complete; folders get
their owner, mode and time at the end, when nothing more is put into them. What cannot be restored
is told, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import BinaryIO, cast

from backupgw.kvstore.backends.beneath import Beneath

from .archive_writing import BUFFER
from .archives import ArchiveReader, members, read_tar
from .patterns import Patterns
from .tar_format import TWINS, XATTR

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PRIVILEGED = ("security.", "trusted.")


class Overwrite(Enum):
    """What becomes of files that are there already."""

    ALWAYS = "always"
    IF_NEWER = "if-newer"
    """Replaced where the backup's is newer."""
    NEVER = "never"


@dataclass
class Restored:
    """What a restore has done so far.

    Attributes:
        members: files, folders, links and devices that are as they were.
        bytes: of files' content.
        left: files that were there and are as they were found.
        problems: path and reason of what is not as it was.
    """

    members: int = 0
    bytes: int = 0
    left: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


class Restore:
    """A restore into one folder.

    Args:
        target: an existing folder; may itself be a link.
        wanted: which members, by their absolute path in the backup; all if it has no patterns. What
            is below a folder that matches is wanted too.
        dry: only count.

    Raises:
        OSError: the target cannot be opened.
    """

    def __init__(
        self,
        target: str,
        wanted: Patterns,
        *,
        overwrite: Overwrite = Overwrite.ALWAYS,
        dry: bool = False,
    ) -> None:
        self.done = Restored()
        self._beneath = Beneath(target)
        self._wanted = wanted
        self._overwrite = overwrite
        self._dry = dry
        self._root = os.geteuid() == 0
        self._folders: list[tuple[str, tarfile.TarInfo]] = []
        self._twins: set[str] = set()
        self._missing: dict[str, list[str]] = {}
        """First names that were not restored, and the further names that are to be."""

    def close(self) -> None:
        """Let go of the target."""
        self._beneath.close()

    def run(self, open_stream: Callable[[], ArchiveReader]) -> Restored:
        """Restore what is wanted.

        Args:
            open_stream: opens the tar stream; a second time where the content of a wanted name is
                with another one, that was not.

        Raises:
            BackendError: the archive is damaged or the place fails. What was restored before stays.
        """
        for member in self._members(open_stream):
            if self._is_wanted(member.name):
                self._restore(member, member.name)
        if self._missing and not self._dry:
            for member in self._members(open_stream):
                self._restore_further(member, self._missing.pop(member.name, []))
            for names in self._missing.values():
                text = "its content is not in the archive"
                self.done.problems += [("/" + name, text) for name in names]
        for path, member in reversed(self._folders):
            self._attempt(path, partial(self._end_folder, path, member))
        if not self._dry:
            os.sync()  # what is told as restored outlasts a power loss
        return self.done

    def _members(self, open_stream: Callable[[], ArchiveReader]) -> Iterator[tarfile.TarInfo]:
        with contextlib.closing(open_stream()) as stream:
            self._tar = read_tar(stream)
            yield from members(self._tar, stream)

    def _is_wanted(self, name: str) -> bool:
        return not self._wanted or self._wanted.match("/" + name)

    def _count(self, restored: bool) -> None:
        self.done.members += restored

    def _attempt(self, path: str, action: Callable[[], bool]) -> bool:
        """Do it and return what it says; False with what went wrong told."""
        try:
            return action()
        except OSError as error:
            text = error.strerror or str(error)
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                text = "a symbolic link or a file is in the way; nothing is restored through it"
            elif error.errno == errno.EISDIR:
                text = "a folder is in the way"
            self.done.problems.append(("/" + path, text))
            return False

    def _restore(self, member: tarfile.TarInfo, path: str) -> None:
        parts = path.split("/")
        if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
            self.done.problems.append((path, "is a name that leads elsewhere; left out"))
            return
        if self._dry:
            self.done.members += 1
            self.done.bytes += member.size if member.isreg() else 0
            return
        self._count(self._attempt(path, partial(self._make, member, path)))

    def _make(self, member: tarfile.TarInfo, path: str) -> bool:
        """Return whether it is there now as it was."""
        if member.isdir():
            self._begin_folder(path)
            self._folders.append((path, member))
            return True
        if member.islnk():
            if member.linkname not in self._twins:
                self._missing.setdefault(member.linkname, []).append(path)
                return False
            return self._link(path, member.linkname, member)
        with self._parent(path) as (folder, name):
            if not self._may_replace(folder, name, member):
                return False
            if member.isreg():
                self._file(folder, name, member)
                if TWINS.decode() in member.pax_headers:
                    self._twins.add(path)
            else:
                self._special(folder, name, member)
        return True

    def _restore_further(self, member: tarfile.TarInfo, names: list[str]) -> None:
        """Restore a file under its further names: the first that may be, and links to that."""
        first = ""
        for name in names:
            if first:
                action = partial(self._link, name, first, member)
            else:
                action = partial(self._make, member, name)
            if self._attempt(name, action):
                self._count(True)
                first = first or name

    def _begin_folder(self, path: str) -> None:
        with self._parent(path) as (folder, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _end_folder(self, path: str, member: tarfile.TarInfo) -> bool:
        fd = self._beneath.open(path, _FOLDER)
        try:
            self._dress(fd, member)
        finally:
            os.close(fd)
        return True

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the folder of a path; those that are missing are made, for their owner alone."""
        above, _, name = path.rpartition("/")
        try:
            fd = self._beneath.open(above, _FOLDER)
        except FileNotFoundError:
            with (
                self._parent(above) as (folder, missing),
                contextlib.suppress(FileExistsError),
            ):
                os.mkdir(missing, 0o700, dir_fd=folder)
            fd = self._beneath.open(above, _FOLDER)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def _may_replace(self, folder: int, name: str, member: tarfile.TarInfo) -> bool:
        try:
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if stat.S_ISDIR(there.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if self._overwrite is Overwrite.ALWAYS:
            return True
        if self._overwrite is Overwrite.IF_NEWER and _mtime_ns(member) > there.st_mtime_ns:
            return True
        self.done.left += 1
        return False

    def _file(self, folder: int, name: str, member: tarfile.TarInfo) -> None:
        temporary = _temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            try:
                self._content(fd, member)
                self._dress(fd, member)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def _content(self, fd: int, member: tarfile.TarInfo) -> None:
        # What is stored of a file is in one piece, holes left out. tarfile's own file object wants
        # to seek, which a stream of its cannot.
        source = cast(BinaryIO, self._tar.fileobj)
        if source.tell() > member.offset_data:
            raise OSError(errno.EIO, "its content was for another name of it, and that failed")
        source.seek(member.offset_data)
        sparse = getattr(member, "sparse", None)
        for offset, length in sparse if sparse is not None else [(0, member.size)]:
            at, end = offset, offset + length
            while at < end:
                data = source.read(min(BUFFER, end - at))
                if not data:
                    raise OSError(errno.EIO, "the archive has less than it says")
                view = memoryview(data)
                while view:
                    written = os.pwrite(fd, view, at)
                    at += written
                    view = view[written:]
                self.done.bytes += len(data)
        if sparse is not None:
            os.ftruncate(fd, member.size)

    def _special(self, folder: int, name: str, member: tarfile.TarInfo) -> None:
        temporary = _temporary()
        if member.issym():
            os.symlink(member.linkname, temporary, dir_fd=folder)
        elif member.isfifo():
            os.mkfifo(temporary, 0o600, dir_fd=folder)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            device = os.makedev(member.devmajor, member.devminor)
            os.mknod(temporary, kind | 0o600, device, dir_fd=folder)
        else:
            raise OSError(errno.EINVAL, f"is of a kind that is not known here: {member.type!r}")
        try:
            if self._root:
                os.chown(temporary, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
            if not member.issym():
                os.chmod(temporary, member.mode & 0o7777, dir_fd=folder)
            self._set_xattrs(f"/proc/self/fd/{folder}/{temporary}", member)
            times = (_mtime_ns(member), _mtime_ns(member))
            os.utime(temporary, ns=times, dir_fd=folder, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def _link(self, path: str, first: str, member: tarfile.TarInfo) -> bool:
        temporary = _temporary()
        with self._parent(path) as (folder, name), self._parent(first) as (there, first_name):
            if not self._may_replace(folder, name, member):
                return False
            os.link(
                first_name, temporary, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False
            )
            try:
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                # Renaming a name over another of the same file does nothing, and leaves it.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
        return True

    def _dress(self, fd: int, member: tarfile.TarInfo) -> None:
        """Give an open file or folder its owner, mode, attributes and time."""
        mode = member.mode & 0o7777
        if self._root:
            os.fchown(fd, member.uid, member.gid)
        elif (member.uid, member.gid) != (os.geteuid(), os.getegid()):
            mode &= 0o1777  # with another owner these bits would give away more than they did
        self._set_xattrs(fd, member)
        os.fchmod(fd, mode)  # behind the attributes: an access list has a say in it
        os.utime(fd, ns=(_mtime_ns(member), _mtime_ns(member)))

    def _set_xattrs(self, target: int | str, member: tarfile.TarInfo) -> None:
        prefix = XATTR.decode()
        for key, value in member.pax_headers.items():
            if not key.startswith(prefix):
                continue
            name = key.removeprefix(prefix)
            data = value.encode("utf-8", "surrogateescape")
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, data)
                else:
                    os.setxattr(target, name, data, follow_symlinks=False)
            except OSError as error:
                if not self._root and name.startswith(_PRIVILEGED):
                    continue  # only root could; it was root who backed it up
                text = f"the attribute {name} cannot be set: {error.strerror}"
                self.done.problems.append(("/" + member.name, text))


def _temporary() -> str:
    return f".backupgw-restore-{secrets.token_hex(8)}"


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the time in nanoseconds; a float of it would not be exact."""
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 1_000_000_000
    whole, _, fraction = text.partition(".")
    nanoseconds = int(fraction.ljust(9, "0")[:9] or "0")
    return int(whole) * 1_000_000_000 + (-nanoseconds if whole.startswith("-") else nanoseconds)
