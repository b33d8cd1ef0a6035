"""Locks among the threads and processes of one machine that end with whoever holds them.

Byte-range locks of open file descriptions (fcntl(2), F_OFD_SETLK, Linux 3.15 and later) on a file
beside the ledger. Unlike SQLite's own locks they are waited for in the kernel and not by sleeping
and polling, unlike a row in a table nobody has to find out that its holder died, and unlike
ordinary POSIX locks they hold between threads as well. The bytes stand for things; nothing is
kept in the file but a flag.

Names are locked so that a change can look a name up, change it and record that as one step:

- a change locks its place shared and its names exclusively;
- who counts a place raises a flag, the one byte of the file that has a meaning, and waits for the
  changes that have not seen it. A change that sees it locks all folders above its names shared as
  well;
- a count of a folder locks it exclusively while it is listed, so that it sees all of a change of
  a name beneath it or nothing. Both go through a gate first, so that a stream of changes cannot
  keep a count waiting for ever.

Names are locked in the order of their bytes, and a count holds one folder at a time: no circle can
arise. Two names whose checksums agree wait for each other now and then, nothing more.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from .errors import LedgerError

_WRITER = 0
_GATE = 1
_COUNT = 2
_SESSIONS = 1 << 32
_PLACES = 2 << 32
_FOLDERS = 3 << 32
_NAMES = 4 << 32

_MOST_IDLE = 64
"""Descriptors kept for the next change."""


_FLOCK = struct.Struct("hhqqi0q")

# Without handing the interpreter's lock around as the fcntl module does: what does not wait is
# done before another thread would have begun, and an upload locks and unlocks five times.
_fcntl = ctypes.PyDLL(None, use_errno=True).fcntl
_fcntl.restype = ctypes.c_int
_fcntl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p)


def _flock(kind: int, byte: int, length: int = 1) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, length, 0)


def _set(fd: int, flock: bytes) -> bool:
    """Lock or unlock bytes; return False where somebody else has them. Raises LedgerError."""
    if _fcntl(fd, fcntl.F_OFD_SETLK, flock) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EAGAIN, errno.EACCES):
        return False
    raise LedgerError(f"the ledger's locks: {os.strerror(code)}")


def _await(fd: int, flock: bytes) -> None:
    """Lock bytes as soon as nobody else has them. Raises LedgerError."""
    if _set(fd, flock):
        return
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, flock)
    except OSError as error:
        raise LedgerError(f"the ledger's locks: {error.strerror}") from error


def _wait(fd: int, kind: int, byte: int) -> None:
    _await(fd, _flock(kind, byte))


def _try(fd: int, kind: int, byte: int) -> bool:
    return _set(fd, _flock(kind, byte))


def _drop(fd: int, byte: int) -> None:
    _set(fd, _flock(fcntl.F_UNLCK, byte))


_TO_WRITE = _flock(fcntl.F_WRLCK, _WRITER)
_WRITTEN = _flock(fcntl.F_UNLCK, _WRITER)
_ALL = _flock(fcntl.F_UNLCK, 0, 0)


def _checksum(place: str, name: str = "") -> int:
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
        self._fds: set[int] = set()
        self._idle: list[int] = []
        self._checksums: dict[str, int] = {}
        self._fd = self._open()
        try:
            with self.writing():
                if os.fstat(self._fd).st_size == 0:
                    os.pwrite(self._fd, b"\0", 0)
            self._flag = mmap.mmap(self._fd, 1, prot=mmap.PROT_READ)
        except OSError as error:
            self._close(self._fd)
            raise LedgerError(f"the ledger's locks {path}: {error.strerror}") from error

    def _open(self) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"the ledger's locks {self._path}: {error.strerror}") from error
        self._fds.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        if fd in self._fds:
            self._fds.discard(fd)
            os.close(fd)

    @contextmanager
    def _holder(self) -> Iterator[int]:
        """Yield a descriptor to hold locks by; afterwards it holds none."""
        fd = self._idle_descriptor()
        try:
            yield fd
        finally:
            self.let_go(fd)

    def _idle_descriptor(self) -> int:
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def let_go(self, fd: int) -> None:
        """Give up all locks held by a descriptor."""
        if fd in self._fds and len(self._idle) < _MOST_IDLE:
            _fcntl(fd, fcntl.F_OFD_SETLK, _ALL)
            self._idle.append(fd)
        else:
            self._close(fd)

    def close(self) -> None:
        """Let go of everything but what `changing` and `counting` hold."""
        self._flag.close()
        self._close(self._fd)
        while self._idle:
            self._close(self._idle.pop())

    def leave_to_parent(self) -> None:
        """In a child after a fork: close what was inherited, whoever held it.

        A lock lasts until the last copy of its descriptor is closed, and the child would hold
        names that threads of the parent have long let go.
        """
        self._idle.clear()
        self._flag.close()
        for fd in list(self._fds):
            self._close(fd)

    # -- processes

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that writes. One thread of a process at a time may ask."""
        self.begin_writing()
        try:
            yield
        finally:
            self.end_writing()

    def begin_writing(self) -> None:
        """Wait until this process is the one that writes."""
        if _fcntl(self._fd, fcntl.F_OFD_SETLK, _TO_WRITE):
            _await(self._fd, _TO_WRITE)

    def end_writing(self) -> None:
        """Let others write."""
        _fcntl(self._fd, fcntl.F_OFD_SETLK, _WRITTEN)

    def begin_session(self, session: int) -> None:
        """Show that the session lives, for as long as this object is not closed."""
        _wait(self._fd, fcntl.F_WRLCK, _SESSIONS + session)

    def is_dead(self, session: int) -> bool:
        """Whether the process of another session has ended."""
        with self._holder() as fd:
            return _try(fd, fcntl.F_WRLCK, _SESSIONS + session)

    # -- names

    def changing(self, place: str, names: Iterable[str]) -> AbstractContextManager[None]:
        """Hold names exclusively, waiting for them."""
        return _Changing(self, place, list(names))

    def lock_names(self, place: str, names: Sequence[str]) -> int:
        """Wait for names and hold them; returns what `let_go` takes."""
        fd = self._idle_descriptor()
        try:
            self._enter(fd, place, names)
            for byte in sorted({_checksum(place, name) for name in names}):
                _wait(fd, fcntl.F_WRLCK, _NAMES + byte)
        except BaseException:
            self.let_go(fd)
            raise
        return fd

    def try_name(self, place: str, name: str) -> int | None:
        """Hold a name if that needs no waiting; returns what `let_go` takes, or None.

        One frame for all of it: this is a part of each upload.
        """
        fd = self._idle_descriptor()
        checksum = self._checksums.get(place)
        if checksum is None:
            checksum = self._checksums[place] = zlib.crc32(place.encode())
        byte = _NAMES + zlib.crc32(name.encode(), checksum)
        pack, lock = _FLOCK.pack, fcntl.F_OFD_SETLK
        if (
            _fcntl(fd, lock, pack(fcntl.F_RDLCK, 0, _PLACES + checksum, 1, 0))
            or self._flag[0]
            or _fcntl(fd, lock, pack(fcntl.F_WRLCK, 0, byte, 1, 0))
        ):
            self.let_go(fd)
            return None
        return fd

    @contextmanager
    def trying(self, place: str, name: str) -> Iterator[bool]:
        """Hold a name if nobody else does; yields whether that is so."""
        with self._holder() as fd:
            self._enter(fd, place, [name])
            yield _try(fd, fcntl.F_WRLCK, _NAMES + _checksum(place, name))

    def _enter(self, fd: int, place: str, names: Sequence[str]) -> None:
        """Keep counts of the names' folders waiting."""
        if not self._flag[0]:
            _wait(fd, fcntl.F_RDLCK, _PLACES + _checksum(place))
            if not self._flag[0]:
                return
        _wait(fd, fcntl.F_RDLCK, _GATE)
        for folder in {folder for name in names for folder in _folders(name)}:
            _wait(fd, fcntl.F_RDLCK, _FOLDERS + _checksum(place, folder))
        _drop(fd, _GATE)

    # -- counts

    @contextmanager
    def counting(self, place: str) -> Iterator[None]:
        """Be the only one who counts a place, and let all changes know."""
        with self._holder() as fd:
            _wait(fd, fcntl.F_WRLCK, _COUNT)
            self._raise_flag(b"\1")
            try:
                _wait(fd, fcntl.F_WRLCK, _PLACES + _checksum(place))
                _drop(fd, _PLACES + _checksum(place))
                yield
            finally:
                self._raise_flag(b"\0")

    def _raise_flag(self, value: bytes) -> None:
        try:
            os.pwrite(self._fd, value, 0)
        except OSError as error:
            raise LedgerError(f"the ledger's locks {self._path}: {error.strerror}") from error

    @contextmanager
    def listing(self, place: str, folder: str) -> Iterator[None]:
        """Wait until no change beneath a folder is under way, and keep new ones waiting."""
        with self._holder() as fd:
            _wait(fd, fcntl.F_WRLCK, _GATE)
            _wait(fd, fcntl.F_WRLCK, _FOLDERS + _checksum(place, folder))
            _drop(fd, _GATE)
            yield


class _Changing:
    """Names held for a change. A class, since a generator takes three times as long."""

    __slots__ = ("_fd", "_locks", "_names", "_place")

    def __init__(self, locks: ByteLocks, place: str, names: Sequence[str]) -> None:
        self._locks, self._place, self._names = locks, place, names

    def __enter__(self) -> None:
        self._fd = self._locks.lock_names(self._place, self._names)

    def __exit__(self, *_: object) -> None:
        self._locks.let_go(self._fd)
