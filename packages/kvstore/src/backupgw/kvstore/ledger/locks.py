"""Locks among the threads and processes of one machine that end with whoever holds them.

Byte-range locks of open file descriptions (fcntl(2), F_OFD_SETLK, Linux 3.15 and later) on a file
beside the ledger. Unlike SQLite's own locks they are waited for in the kernel and not by sleeping
and polling, unlike a row in a table nobody has to find out that its holder died, and unlike
ordinary POSIX locks they hold between threads as well. The bytes stand for things; the file stays
empty.

Names are locked so that a change can look a name up, change it and record that as one step:

- a change locks its names exclusively and all folders above them shared;
- a count of a folder locks it exclusively while it is listed, so that it sees all of a change of
  a name beneath it or nothing;
- both go through a gate first, so that a stream of changes cannot keep a count waiting for ever.

Names are locked in the order of their bytes, and a count holds one folder at a time: no circle can
arise. Two names whose checksums agree wait for each other now and then, nothing more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .errors import LedgerError

_WRITER = 0
_GATE = 1
_SESSIONS = 1 << 32
_COUNTS = 2 << 32
_FOLDERS = 3 << 32
_NAMES = 4 << 32


def _set(fd: int, command: int, kind: int, byte: int) -> bool:
    """Lock or unlock a byte; return False where somebody else has it. Raises LedgerError."""
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise LedgerError(f"the ledger's locks: {error.strerror}") from error
    return True


def _wait(fd: int, kind: int, byte: int) -> None:
    _set(fd, fcntl.F_OFD_SETLKW, kind, byte)


def _try(fd: int, kind: int, byte: int) -> bool:
    return _set(fd, fcntl.F_OFD_SETLK, kind, byte)


def _drop(fd: int, byte: int) -> None:
    _set(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, byte)


def _byte(place: str, name: str) -> int:
    return zlib.crc32(name.encode(), zlib.crc32(place.encode()))


def _folders(name: str) -> Iterator[str]:
    """Yield the folders above a name, the root ("") among them."""
    while name:
        name = name.rpartition("/")[0]
        yield name


class ByteLocks:
    """The locks of one ledger, as this process takes them. All methods raise LedgerError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open_fds: set[int] = set()
        self._fd = self._open()

    def _open(self) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"the ledger's locks {self._path}: {error.strerror}") from error
        self._open_fds.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        if fd in self._open_fds:
            self._open_fds.discard(fd)
            os.close(fd)

    def close(self) -> None:
        """Let go of everything but what `changing` and `counting` hold."""
        self._close(self._fd)

    def leave_to_parent(self) -> None:
        """In a child after a fork: close what was inherited, whoever held it.

        A lock lasts until the last copy of its descriptor is closed, and the child would hold
        names that threads of the parent have long let go.
        """
        for fd in list(self._open_fds):
            self._close(fd)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that writes. One thread of a process at a time may ask."""
        _wait(self._fd, fcntl.F_WRLCK, _WRITER)
        try:
            yield
        finally:
            _drop(self._fd, _WRITER)

    def begin_session(self, session: int) -> None:
        """Show that the session lives, for as long as this object is not closed."""
        _wait(self._fd, fcntl.F_WRLCK, _SESSIONS + session)

    def is_dead(self, session: int) -> bool:
        """Whether the process of another session has ended."""
        fd = self._open()
        try:
            return _try(fd, fcntl.F_WRLCK, _SESSIONS + session)
        finally:
            self._close(fd)

    @contextmanager
    def changing(self, place: str, names: Iterable[str]) -> Iterator[None]:
        """Hold names exclusively, waiting for them."""
        fd = self._open()
        try:
            self._take(fd, place, names)
            yield
        finally:
            self._close(fd)

    @contextmanager
    def trying(self, place: str, name: str) -> Iterator[bool]:
        """Hold a name if nobody else does; yields whether that is so."""
        fd = self._open()
        try:
            _wait(fd, fcntl.F_RDLCK, _GATE)
            free = all(
                _try(fd, fcntl.F_RDLCK, _FOLDERS + _byte(place, folder))
                for folder in _folders(name)
            ) and _try(fd, fcntl.F_WRLCK, _NAMES + _byte(place, name))
            _drop(fd, _GATE)
            yield free
        finally:
            self._close(fd)

    def _take(self, fd: int, place: str, names: Iterable[str]) -> None:
        names = list(names)
        _wait(fd, fcntl.F_RDLCK, _GATE)
        for folder in {folder for name in names for folder in _folders(name)}:
            _wait(fd, fcntl.F_RDLCK, _FOLDERS + _byte(place, folder))
        for byte in sorted({_byte(place, name) for name in names}):
            _wait(fd, fcntl.F_WRLCK, _NAMES + byte)
        _drop(fd, _GATE)

    @contextmanager
    def counting(self, place: str) -> Iterator[None]:
        """Be the only one who counts a place."""
        fd = self._open()
        try:
            _wait(fd, fcntl.F_WRLCK, _COUNTS + _byte(place, ""))
            yield
        finally:
            self._close(fd)

    @contextmanager
    def listing(self, place: str, folder: str) -> Iterator[None]:
        """Wait until no change beneath a folder is under way, and keep new ones waiting."""
        fd = self._open()
        try:
            _wait(fd, fcntl.F_WRLCK, _GATE)
            _wait(fd, fcntl.F_WRLCK, _FOLDERS + _byte(place, folder))
            _drop(fd, _GATE)
            yield
        finally:
            self._close(fd)
