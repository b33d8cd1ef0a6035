"""Files of which a piece was read a moment ago, kept open for the next one.

Clients read many small pieces of few files, and half of what such a piece costs is to open its
file, to look at it and to close it. Here it costs one look: at the name, before every read. Only a
file that its name still leads to is read, so that nothing is found here which was deleted, replaced
or put aside, whoever did that. The bytes of a deleted file stay on the disk while it is open: for
SECONDS at most.

Nothing here waits. So only local file systems are read this way, where a look at the name of an
open file is answered from memory, and only what the page cache holds. Whatever is not to be had at
once is left to the ordinary way.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import NamedTuple

from .base import Loaded
from .beneath import Beneath
from .posixfs_kind import ON_DISK, kind

SECONDS = 2.0
"""How long a file is kept open after it was opened."""

LARGEST = 512 << 10
"""Bytes of a piece; reading more is worth a thread."""

MOST = 128
"""Files kept open at a time."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class _Kept(NamedTuple):
    fd: int
    device: int
    inode: int
    opened: float


class KeptFiles:
    """The files beneath one root. Any thread may read.

    Whoever reads a file takes it out for that time, so no two use one descriptor and none is
    closed while it is used.

    Args:
        root: open as long as this.
    """

    def __init__(self, root: Beneath) -> None:
        self._root = root
        self._usable = kind(root.fd) in ON_DISK
        self._on_disk = {os.fstat(root.fd).st_dev: self._usable}
        """File systems beneath the root, by device, and whether they are read this way."""
        self._files: dict[str, _Kept] = {}
        self._sweeper: threading.Timer | None = None
        self._lock = threading.Lock()
        self._closed = False

    def load(self, name: str, offset: int, size: int | None) -> Loaded | None:
        """Return a piece of a file as `Backend.load_nowait` does."""
        if not self._usable:
            return None
        kept = self._files.pop(name, None)
        try:
            if kept is not None:
                total = self._size(name, kept)
                if total is None:
                    os.close(kept.fd)
                    kept = None
            if kept is None:
                opened = self._open(name)
                if opened is None:
                    return None
                kept, total = opened
        except OSError:
            if kept is not None:
                os.close(kept.fd)
            return None
        try:
            assert total is not None
            return self._piece(kept.fd, total, offset, size)
        finally:
            self._keep(name, kept)

    def _size(self, name: str, kept: _Kept) -> int | None:
        """Return the file's size, None where its name leads to another one."""
        status = os.stat(name, dir_fd=self._root.fd)
        same = status.st_ino == kept.inode and status.st_dev == kept.device
        return status.st_size if same else None

    def _open(self, name: str) -> tuple[_Kept, int] | None:
        fd = self._root.open_nowait(name, _READ)
        if fd is None:
            return None
        status = os.fstat(fd)
        on_disk = self._on_disk.get(status.st_dev)
        if on_disk is None:
            on_disk = self._on_disk[status.st_dev] = kind(fd) in ON_DISK
        if not on_disk or not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        kept = _Kept(fd, status.st_dev, status.st_ino, time.monotonic())
        return kept, status.st_size

    def _piece(self, fd: int, total: int, offset: int, size: int | None) -> Loaded | None:
        position = max(total + offset, 0) if offset < 0 else offset
        want = max(total - position, 0)
        if size is not None:
            want = max(min(size, want), 0)
        if want > LARGEST:
            return None
        buffer = bytearray(want)
        if want:
            try:
                if os.preadv(fd, (buffer,), position, os.RWF_NOWAIT) != want:
                    return None
            except OSError:
                return None
        return Loaded(buffer, total)

    def _keep(self, name: str, kept: _Kept) -> None:
        files = self._files
        if len(files) >= MOST:
            self._close_oldest()
        if files.setdefault(name, kept) is not kept:
            os.close(kept.fd)
        if self._closed:
            self._close_all()
        elif self._sweeper is None:
            self._sweep_later()

    def _close_oldest(self) -> None:
        """Close what was read longest ago: what is read comes behind all others again."""
        try:
            oldest = self._files.pop(next(iter(self._files)), None)
        except (RuntimeError, StopIteration):
            return  # other threads read meanwhile: one more does no harm
        if oldest is not None:
            os.close(oldest.fd)

    def _sweep_later(self) -> None:
        with self._lock:
            if self._sweeper is None and not self._closed:
                self._sweeper = threading.Timer(SECONDS / 2, self._sweep)
                self._sweeper.daemon = True
                self._sweeper.start()

    def _sweep(self) -> None:
        latest = time.monotonic() - SECONDS / 2
        for name in list(self._files):
            kept = self._files.pop(name, None)
            if kept is None:
                continue
            if kept.opened <= latest or self._files.setdefault(name, kept) is not kept:
                os.close(kept.fd)
        with self._lock:
            self._sweeper = None
        if self._closed:  # while one was looked at
            self._close_all()
        elif self._files:
            self._sweep_later()

    def close(self) -> None:
        """Close them all; nothing is found here any more."""
        with self._lock:
            self._closed = True
            self._usable = False
            if self._sweeper is not None:
                self._sweeper.cancel()
        self._close_all()

    def _close_all(self) -> None:
        while self._files:
            try:
                _, kept = self._files.popitem()
            except KeyError:
                return
            os.close(kept.fd)
