"""A server's folder as a tar.gz, made while it is written: adapters `wings` and `s3`.

Memory does not grow with the folder. The server may run meanwhile: a file that shrinks is filled up
with zeros and named among those that changed, one that grows is cut where it ended, one that
vanishes is left out. Symbolic links are kept as what they say and never followed, each name of a
file with several is a file of its own, and sockets, pipes and devices are left out, as Wings does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from .ignore import IgnoreRules
from .server_tree import Entry, Walk
from .wings_file import Compression

PIECE = 256 << 10
"""Bytes moved at a time."""
MAX_NAMED = 100
"""Changed files that are named; more are counted."""

_LEVELS = {Compression.NONE: 0, Compression.BEST_SPEED: 1, Compression.BEST_COMPRESSION: 9}


_MAGIC = b"\x1f\x8b\x08"
_COMMENT = 16
_UNIX = b"\x03"
_LONGEST_LABEL = 256


class ArchiveError(Exception):
    """An archive cannot be made, or is none; the message says why."""


@dataclass
class Progress:
    """How far it is: bytes of files read or written, and how many files."""

    bytes: int = 0
    files: int = 0


@dataclass(frozen=True)
class Made:
    """An archive that was made.

    Attributes:
        size: bytes of the archive.
        sha1: of the archive, in hex, as the Panel wants it.
        files, content: how many files are in it, and their bytes.
        changed: paths of files that changed while they were read, at most MAX_NAMED.
        changed_count: how many changed.
    """

    size: int
    sha1: str
    files: int
    content: int
    changed: tuple[str, ...] = ()
    changed_count: int = 0


Tell = Callable[[Progress], None]
"""Told of progress after each piece; what it raises ends the work."""


def nobody(_progress: Progress) -> None:
    """Tell nobody."""


def make_archive(
    root: int,
    rules: IgnoreRules,
    write: Callable[[bytes], object],
    *,
    compression: Compression = Compression.BEST_SPEED,
    label: str = "",
    tell: Tell = nobody,
) -> Made:
    """Write a server's folder as a tar.gz.

    Args:
        root: descriptor of the folder.
        rules: what is left out.
        write: takes the archive, piece by piece; what it raises ends the work.
        compression: how hard.
        label: kept in the archive's head, where gzip has room for a comment; see `read_label`.
        tell: called often.

    Raises:
        ArchiveError: a file or folder cannot be read.
    """
    packer = _Packer(write, _LEVELS[compression], label)
    work = _Work(packer, tell)
    # `copybufsize` is not in the type's description.
    options: dict[str, Any] = {"mode": "w|", "fileobj": packer, "copybufsize": PIECE}
    options |= {"format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape"}
    with tarfile.open(**options) as tar:
        walk = Walk(root)
        try:
            for entry in walk:
                if rules.leaves_out(entry.names, folder=entry.folder):
                    walk.enter = False
                    continue
                work.add(tar, entry)
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every entry
        except OSError as error:
            raise ArchiveError(f"a folder cannot be read: {error.strerror or error}") from error
    return packer.finish(work)


def read_label(head: bytes) -> str:
    """Return the label of an archive by its first bytes; "" where it has none (Wings' own)."""
    if head[:4] != _MAGIC + bytes([_COMMENT]):
        return ""
    text, end, _ = head[10 : 10 + _LONGEST_LABEL].partition(b"\0")
    return text.decode("latin-1") if end else ""


class _Packer:
    """gzip (RFC 1952) of what the archive writes: no name, no time, and a comment."""

    def __init__(self, write: Callable[[bytes], object], level: int, label: str) -> None:
        self._write = write
        self._deflate = zlib.compressobj(level, wbits=-15)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._size = 0
        self._crc = 0
        self._count = 0
        comment = label.encode("latin-1") + b"\0" if label else b""
        self._pass(_MAGIC + bytes([_COMMENT if comment else 0]) + bytes(5) + _UNIX + comment)

    def write(self, data: bytes) -> int:
        self._crc = zlib.crc32(data, self._crc)
        self._count += len(data)
        self._pass(self._deflate.compress(data))
        return len(data)

    def finish(self, work: _Work) -> Made:
        self._pass(self._deflate.flush())
        self._pass(struct.pack("<II", self._crc, self._count & 0xFFFFFFFF))
        return Made(
            self._size,
            self._sha1.hexdigest(),
            work.progress.files,
            work.progress.bytes,
            tuple(work.changed),
            work.changed_count,
        )

    def _pass(self, data: bytes) -> None:
        if data:
            self._sha1.update(data)
            self._size += len(data)
            self._write(data)


@dataclass
class _Work:
    packer: _Packer
    tell: Tell
    progress: Progress = field(default_factory=Progress)
    changed: list[str] = field(default_factory=list)
    changed_count: int = 0

    def add(self, tar: tarfile.TarFile, entry: Entry) -> None:
        try:
            found = os.stat(entry.name, dir_fd=entry.parent, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self._add_file(tar, entry)
                return
            info = _info(entry, found)
            if stat.S_ISDIR(found.st_mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(found.st_mode):
                info.type = tarfile.SYMTYPE
                target = os.readlink(entry.name, dir_fd=entry.parent)
                info.linkname = target.decode(errors="surrogateescape")
            else:
                return
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(entry, error) from error
        tar.addfile(info)
        self.tell(self.progress)

    def _add_file(self, tar: tarfile.TarFile, entry: Entry) -> None:
        # O_NONBLOCK: it may have become a pipe.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(entry.name, flags, dir_fd=entry.parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return  # it vanished, or another thing took its place
            raise
        with open(descriptor, "rb", buffering=0) as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            info = _info(entry, found)
            info.size = found.st_size
            content = _Content(file, self, entry, found.st_size)
            tar.addfile(info, content)  # type: ignore[arg-type]  # all it does is read
        self.progress.files += 1

    def note_changed(self, entry: Entry) -> None:
        self.changed_count += 1
        if len(self.changed) < MAX_NAMED:
            self.changed.append(entry.path)


class _Content:
    """A file of the size that it had when it was opened."""

    def __init__(self, file: BinaryIO, work: _Work, entry: Entry, size: int) -> None:
        self._file = file
        self._work = work
        self._entry = entry
        self._left = size
        self.short = False

    def read(self, wanted: int) -> bytes:
        """Return just as many bytes as are wanted: tarfile takes fewer for an error."""
        wanted = min(wanted, self._left)
        parts: list[bytes] = []
        missing = wanted
        while missing and not self.short:
            try:
                part = self._file.read(missing)
            except OSError as error:
                raise _unreadable(self._entry, error) from error
            parts.append(part)
            missing -= len(part)
            if not part:
                self.short = True
                self._work.note_changed(self._entry)
        self._left -= wanted
        self._work.progress.bytes += wanted
        self._work.tell(self._work.progress)
        return b"".join((*parts, bytes(missing)))


def _info(entry: Entry, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(b"/".join(entry.names).decode(errors="surrogateescape"))
    info.mode = stat.S_IMODE(found.st_mode)
    info.uid, info.gid = found.st_uid, found.st_gid
    seconds, rest = divmod(found.st_mtime_ns, 10**9)
    info.mtime = seconds
    if rest and seconds >= 0:
        info.pax_headers = {"mtime": f"{seconds}.{rest:09}"}  # a float would round it
    return info


def _unreadable(entry: Entry, error: OSError) -> ArchiveError:
    return ArchiveError(f"{entry.path} cannot be read: {error.strerror or error}")
