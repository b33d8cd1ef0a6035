"""A tar.zst archive on its way out: a tree, as one stream that is never whole in memory.

Kept of each file: owner and group (numbers and names), mode, time to the nanosecond, extended
attributes (access lists and capabilities are among them), further names, holes. The archive is what
`tar --zstd --xattrs --xattrs-include='*' -xf` opens; behind it stands a frame that zstd skips, with
the SHA-256 of the tar stream, by which `backup verify` sees that every byte came back.
"""

from __future__ import annotations

import errno
import functools
import grp
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard

from .tar_format import END, Member, header, padding
from .tree import Found

BUFFER = 1 << 20
_RECORD = 10240
"""Archives end at a multiple of this many bytes, as tar has always written them."""

TRAILER_MAGIC = 0x184D2A5B
"""One of zstd's numbers for frames that are skipped (RFC 8878, 3.1.2)."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass
class Counts:
    """What an archive holds so far.

    Attributes:
        members: files, folders, links and devices.
        bytes: of files' content, holes included.
        stored: of the compressed archive.
        problems: path and reason of each file that is not in it as it should be.
        changed: files that somebody wrote to while they were read.
    """

    members: int = 0
    bytes: int = 0
    stored: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


class ArchiveWriter:
    """Writes members, one after the other.

    Args:
        sink: takes the archive's bytes.
        level: zstd's.
        threads: that compress; 0 for this one alone.
    """

    def __init__(self, sink: Callable[[bytes], None], *, level: int = 3, threads: int = 0) -> None:
        self.counts = Counts()
        self._sink = sink
        compressor = zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True)
        self._compressor = compressor.compressobj()
        self._digest = hashlib.sha256()
        self._written = 0
        self._twins: dict[tuple[int, int], bytes] = {}
        self._buffer = bytearray(BUFFER)

    def add(self, found: Found) -> None:
        """Write one entry; what cannot be read is told in `counts.problems`."""
        status = found.status
        name = os.fsencode(found.path.lstrip("/"))
        if stat.S_ISSOCK(status.st_mode) or not name:
            return  # a socket is made by the program that listens on it
        try:
            if stat.S_ISREG(status.st_mode):
                self._add_file(found, name)
            else:
                self._put(header(_member(found, name, status)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return  # it was deleted since it was found
            self._problem(found.path, error.strerror or str(error))
            return
        self.counts.members += 1

    def _add_file(self, found: Found, name: bytes) -> None:
        status = found.status
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and identity in self._twins:
            member = _member(found, name, status)
            member.hard, member.link, member.size = True, self._twins[identity], 0
            member.xattrs = {}
            self._put(header(member))
            return
        fd = os.open(found.name, _OPEN, dir_fd=found.folder)
        try:
            opened = os.fstat(fd)
            if not stat.S_ISREG(opened.st_mode):
                self._problem(found.path, "became something else while it was opened")
                return
            member = _member(found, name, opened)
            member.size = opened.st_size
            member.twins = opened.st_nlink > 1
            if opened.st_blocks * 512 < opened.st_size:
                member.data = _data(fd, opened.st_size)
            self._put(header(member))
            stored = self._written
            spans = member.data if member.data is not None else [(0, member.size)]
            for offset, length in spans:
                self._copy(fd, offset, length, found.path)
            self._put(padding(self._written - stored))
            after = os.fstat(fd)
            if (after.st_mtime_ns, after.st_size) != (opened.st_mtime_ns, opened.st_size):
                self.counts.changed.append(found.path)
        finally:
            os.close(fd)
        self.counts.bytes += member.size - sum(length for _, length in spans)
        if member.twins:
            self._twins[identity] = name

    def _copy(self, fd: int, offset: int, length: int, path: str) -> None:
        """Write so many bytes of a file, zeros where it has become shorter or cannot be read."""
        with memoryview(self._buffer) as buffer:
            while length:
                try:
                    count = os.preadv(fd, [buffer[: min(BUFFER, length)]], offset)
                    reason = "became shorter while it was read; its end is missing"
                except OSError as error:
                    # Its header is written already: the archive goes on, and says what is wrong.
                    count, reason = 0, f"{error.strerror}; what could not be read is zeros"
                if count == 0:
                    self._problem(path, reason)
                    while length:
                        step = min(BUFFER, length)
                        self._put(bytes(step))
                        length -= step
                    return
                self._put(buffer[:count])
                self.counts.bytes += count
                offset += count
                length -= count

    def _problem(self, path: str, reason: str) -> None:
        self.counts.problems.append((path, reason))

    def _put(self, data: bytes | memoryview) -> None:
        if not data:
            return
        self._digest.update(data)
        self._written += len(data)
        self._send(self._compressor.compress(data))

    def _send(self, data: bytes) -> None:
        if data:
            self.counts.stored += len(data)
            self._sink(data)

    def finish(self) -> None:
        """Write the archive's end and what is known of it."""
        self._put(END)
        self._put(bytes(-self._written % _RECORD))
        self._send(self._compressor.flush())
        about = {
            "format": 1,
            "members": self.counts.members,
            "bytes": self.counts.bytes,
            "tar_bytes": self._written,
            "tar_sha256": self._digest.hexdigest(),
            "problems": len(self.counts.problems),
        }
        body = json.dumps(about).encode()
        self._send(TRAILER_MAGIC.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body)


def _member(found: Found, name: bytes, status: os.stat_result) -> Member:
    link = b""
    if stat.S_ISLNK(status.st_mode):
        link = os.fsencode(os.readlink(found.name, dir_fd=found.folder))
    return Member(
        name=name,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        link=link,
        device=status.st_rdev,
        user=_user(status.st_uid),
        group=_group(status.st_gid),
        xattrs=_xattrs(found),
    )


def _xattrs(found: Found) -> dict[str, bytes]:
    # By the folder's descriptor: no other call looks at a link itself.
    path = f"/proc/self/fd/{found.folder}/{found.name}"
    try:
        return {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
            return {}
        raise


def _data(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return where a file's data lies; None if it has no holes, or the file system cannot tell."""
    spans: list[tuple[int, int]] = []
    at = 0
    try:
        while at < size:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
            if begin >= size:
                break
            spans.append((begin, end - begin))
            at = end
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data up to the end
            return None
    return None if spans == [(0, size)] else spans


@functools.lru_cache(maxsize=4096)
def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


@functools.lru_cache(maxsize=4096)
def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""
