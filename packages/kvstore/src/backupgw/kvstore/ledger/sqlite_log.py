"""The log beside the SQLite file of a ledger: transactions that the file does not have yet.

A transaction of SQLite writes whole pages and hands the interpreter's lock around at each of its
statements; a record here is one write of some hundred bytes. The records are those that came after
the state in the file. Each carries the tag that the file has for them, so once the file has taken
them over and has a new tag they are void, whatever becomes of their bytes. A record counts when it
is there whole: one that a dying process left unfinished is overwritten.

The header names the tag, and the tag that a transaction of SQLite under way is going to set. With
that, a process that finds another one dead between SQLite's commit and the header can tell from
the file whether the records hold; and a log that was lost or mixed up shows.

Everything here happens within the writers' lock. What was written the kernel has: it outlasts a
SIGKILL, and is not synced. Records are stored into the mapped file where its room cannot be taken
away from it: no call, no journal, and no thread of the process has to wait for its turn meanwhile.
A file system that copies on write may find no room for a page that it has shown already, and would
kill us; there, and wherever we do not know, a record is written.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from zlib import crc32

SIZE = 256 << 10
"""Bytes of the file: some hundred small uploads to each transaction of SQLite."""

NO_TAG = bytes(8)
"""Of a file that never had records."""

START = 64
"""Where the first record lies."""

_HEADER = struct.Struct("<8s8s")
_FRAME = struct.Struct("<8sII")
frame = _FRAME.pack
"""Return what a record begins with: its tag, its length and its checksum."""

FRAME = _FRAME.size
"""Bytes that a record takes besides its own."""

_IN_PLACE = frozenset({"ext2", "ext3", "ext4", "tmpfs"})
"""File systems that overwrite a file where it lies."""


def _overwrites_in_place(fd: int) -> bool:
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                mount, _, source = line.partition(" - ")
                if mount.split(" ", 3)[2] == wanted:
                    return source.split(" ", 1)[0] in _IN_PLACE
    except OSError:
        pass  # no /proc: then we do not know
    return False


class Log:
    """The log as this process has it open. All methods raise OSError.

    Attributes:
        map: its bytes, SIZE of them.
        mapped: whether records may be stored there.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(self._fd).st_size
            if size < SIZE:
                # Its room is taken once and for all: what is mapped never lacks its bytes, and
                # no record makes the file system look for blocks.
                self._write(size, bytes(SIZE - size))
            self.map = mmap.mmap(self._fd, SIZE)
            self.mapped = _overwrites_in_place(self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        self.map.close()
        os.close(self._fd)

    def tags(self) -> tuple[bytes, bytes]:
        """Return the tag of the records, and the one that is to follow or NO_TAG."""
        tag, following = _HEADER.unpack_from(self.map)
        return tag, following

    def has(self, tag: bytes) -> bool:
        """Whether records of this tag hold, without a doubt."""
        return self.map[: _HEADER.size] == tag + NO_TAG

    def announce(self, tag: bytes, following: bytes) -> None:
        """Note that the file is going to have the tag `following`, and these records with it."""
        self._write(0, _HEADER.pack(tag, following))

    def begin(self, tag: bytes) -> None:
        """Note that records of this tag hold."""
        self._write(0, _HEADER.pack(tag, NO_TAG))

    def read(self, tag: bytes, start: int) -> Iterator[tuple[bytes, int]]:
        """Yield the records from `start` on, each with where it ends."""
        while start + _FRAME.size < SIZE and self.map[start : start + len(tag)] == tag:
            _, length, checksum = _FRAME.unpack_from(self.map, start)
            begin, end = start + _FRAME.size, start + _FRAME.size + length
            if length == 0 or end > SIZE:
                return
            record = self.map[begin:end]
            if crc32(record) != checksum:
                return
            yield record, end
            start = end

    def goes_on(self, tag: bytes, end: int) -> bool:
        """Whether there is something behind `end` that may be a record of this tag."""
        return self.map[end : end + len(tag)] == tag

    def append(self, tag: bytes, start: int, record: bytes) -> int | None:
        """Write a record at `start`; returns where it ends, None where the log has no room."""
        length = len(record)
        end = start + FRAME + length
        if end > SIZE:
            return None
        data = frame(tag, length, crc32(record)) + record
        if self.mapped:
            self.map[start:end] = data
        else:
            self._write(start, data)
        return end

    def _write(self, start: int, data: bytes) -> None:
        if os.pwrite(self._fd, data, start) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
