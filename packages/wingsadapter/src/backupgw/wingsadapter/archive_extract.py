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
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any, Protocol

from .archive import PIECE, ArchiveError, Progress, Tell, nobody
from .server_tree import FOLDER

MAX_DEPTH = 1000
"""Names in one path; the kernel's own limit is about 2,000."""


class Source(Protocol):
    """Where an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


@dataclass(frozen=True)
class Content:
    """What an archive holds: entries of every kind, and the bytes of its files."""

    entries: int
    content: int
    left_out: int = 0


@dataclass(frozen=True)
class Limits:
    """How much may come out of an archive; None for any amount."""

    content: int | None = None
    entries: int | None = None


ANY = Limits()


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
    for info, body in _members(source, limits):
        names = _names(info)
        if names and wanted(names):
            if _wanted_kind(info):
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
    members = _members(source, limits, packed=packed)
    return _Unpacking(folder, owner, tell).run(members, wanted, tuple(below))


class _Unpacking:
    def __init__(self, folder: int, owner: tuple[int, int] | None, tell: Tell) -> None:
        self._folder = folder
        self._owner = owner
        self._tell = tell
        self._progress = Progress()
        self._times: list[tuple[tuple[bytes, ...], int, int]] = []
        self._parent: tuple[bytes, ...] = ()
        self._parent_fd = -1

    def run(
        self,
        members: Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]],
        wanted: Callable[[Sequence[bytes]], bool],
        below: tuple[bytes, ...],
    ) -> Content:
        entries = content = left_out = 0
        try:
            for info, body in members:
                names = _names(info)
                if names[: len(below)] != below:
                    continue
                names = names[len(below) :]
                if not names or not wanted(names):
                    continue
                if not _wanted_kind(info):
                    left_out += 1
                    continue
                entries += 1
                content += info.size if info.isreg() else 0
                self._put(info, names, body)
        finally:
            self._leave()
        for names, moment, mode in reversed(self._times):
            self._finish_folder(names, moment, mode)
        return Content(entries, content, left_out)

    def _put(self, info: tarfile.TarInfo, names: tuple[bytes, ...], body: Iterator[bytes]) -> None:
        parent = self._enter(names[:-1])
        name = names[-1]
        if info.isdir():
            self._make_folder(parent, name)
            self._times.append((names, _moment(info), info.mode & 0o777))
        elif info.issym():
            self._make_room(parent, name)
            target = info.linkname.encode(errors="surrogateescape")
            if not target or b"\0" in target:
                raise ArchiveError(f"{_shown(names)} is a link to nothing")
            os.symlink(target, name, dir_fd=parent)
            self._own_link(parent, name, _moment(info))
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
            _set_time(descriptor, _moment(info))
        finally:
            os.close(descriptor)
        self._progress.files += 1

    def _link(self, info: tarfile.TarInfo, parent: int, name: bytes) -> None:
        target = _split(info.linkname)
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

    def _finish_folder(self, names: tuple[bytes, ...], moment: int, mode: int) -> None:
        try:
            descriptor = self._open(names)
        except ArchiveError:
            return  # a later entry took its place
        try:
            os.fchmod(descriptor, mode)
            _set_time(descriptor, moment)
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


def _wanted_kind(info: tarfile.TarInfo) -> bool:
    return info.isreg() or info.isdir() or info.issym() or info.islnk()


def _names(info: tarfile.TarInfo) -> tuple[bytes, ...]:
    return _split(info.name)


def _split(path: str) -> tuple[bytes, ...]:
    raw = path.encode(errors="surrogateescape")
    names = tuple(name for name in raw.split(b"/") if name not in (b"", b"."))
    if raw.startswith(b"/") or b".." in names or b"\0" in raw or len(names) > MAX_DEPTH:
        raise ArchiveError(f"the archive has a path that leads out of it: {path[:200]!r}")
    if any(len(name) > 255 for name in names):
        raise ArchiveError(f"the archive has a name that no file can have: {path[:200]!r}…")
    return names


def _shown(names: Sequence[bytes]) -> str:
    return b"/".join(names).decode(errors="backslashreplace")


def _set_time(descriptor: int, moment: int) -> None:
    with contextlib.suppress(OverflowError, OSError):
        os.utime(descriptor, ns=(moment, moment))


def _moment(info: tarfile.TarInfo) -> int:
    """Return when an entry was changed, in nanoseconds; 0 where the archive talks nonsense."""
    try:
        return int(Decimal(info.pax_headers.get("mtime") or info.mtime) * 10**9)
    except (ArithmeticError, ValueError):
        return 0


# -- reading


class _Unpacker:
    """What gzip holds, piece by piece, members one after the other, each with its checksum."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._gzip = zlib.decompressobj(wbits=31)
        self._rest = b""
        self._begun = False
        self._ended = False
        self.finished = False

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end alone."""
        parts: list[bytes] = []
        while size > 0:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end, so that the checksum is looked at. Bounded by what is stored there."""
        left = 64 << 20
        while part := self._some(PIECE):
            left -= len(part)
            if left < 0:
                raise ArchiveError("the archive goes on behind its end")

    def _some(self, size: int) -> bytes:
        while not self.finished:
            if self._gzip.eof:
                self._rest = self._gzip.unused_data or self._source.read(PIECE)
                if not self._rest:
                    self.finished = True
                    break
                self._gzip = zlib.decompressobj(wbits=31)
                self._begun = False
            data = self._gzip.unconsumed_tail or self._rest
            self._rest = b""
            if not data:
                data = self._source.read(PIECE)
                if not data:
                    raise ArchiveError("the archive ends in the middle")
            self._begun = True
            try:
                part = self._gzip.decompress(data, size)
            except zlib.error as error:
                raise ArchiveError(f"the archive is damaged: {error}") from error
            if part:
                return part
        return b""


class _Plain:
    """What is not compressed, with the same face."""

    def __init__(self, source: Source) -> None:
        self.read = source.read

    def drain(self) -> None:
        """Read what is behind the end of the archive."""
        while self.read(PIECE):
            pass


def _members(
    source: Source, limits: Limits, *, packed: bool = True
) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield each entry with its content, and at the end make sure that the archive is whole."""
    unpacker = _Unpacker(source) if packed else _Plain(source)
    content = entries = 0
    options: dict[str, Any] = {"mode": "r|", "fileobj": unpacker, "bufsize": PIECE}
    options |= {"encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with tarfile.open(**options) as tar:
            for info in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every entry
                entries += 1
                content += max(info.size, 0)
                if limits.entries is not None and entries > limits.entries:
                    raise ArchiveError(f"the archive has more than {limits.entries} entries")
                if limits.content is not None and content > limits.content:
                    raise ArchiveError(
                        f"the archive unpacks to more than the {limits.content} bytes there are"
                    )
                if info.isreg() and info.sparse is not None:
                    raise ArchiveError(f"{info.name!r} is sparse, which is not understood")
                file = tar.extractfile(info) if info.isreg() else None
                yield info, _pieces(file, info)
        unpacker.drain()
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"the archive is damaged: {error}") from error


def _pieces(file: IO[bytes] | None, info: tarfile.TarInfo) -> Iterator[bytes]:
    left = info.size if file is not None else 0
    while left:
        assert file is not None
        try:
            piece = file.read(min(left, PIECE))
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(f"the archive is damaged: {error}") from error
        if not piece:
            raise ArchiveError("the archive ends in the middle of a file")
        left -= len(piece)
        yield piece
