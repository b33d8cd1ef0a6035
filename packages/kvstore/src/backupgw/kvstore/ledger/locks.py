"""Locks among the threads and processes of one machine that end with whoever holds them.

Byte-range locks of open file descriptions (fcntl(2), F_OFD_SETLK, Linux 3.15 and later) on a file
beside the ledger. Unlike SQLite's own locks they are waited for in the kernel and not by sleeping
and polling, unlike a row in a table nobody has to find out that its holder died, and unlike
ordinary POSIX locks they hold between threads as well. The bytes stand for things; nothing is
kept in the file but two flags.

Names are locked so that a change can look a name up, change it and record that as one step:

- a change locks its place shared and its names exclusively;
- who counts a place raises a flag, the first byte of the file, and waits for the
  changes that have not seen it. A change that sees it locks all folders above its names shared as
  well;
- a count locks a folder exclusively for a moment after it was listed (`counting`), so that it sees
  all of a change of a name beneath it or nothing. Both go through a gate first, so that a stream of
  changes cannot keep a count waiting for ever.

Who has to wait for a lock raises the second byte: a process may have more locked than it needs just
now (`tenure`), and gives that up then.

Names are locked in the order of their bytes, and a count holds one folder at a time: no circle can
arise. Two names whose checksums agree wait for each other now and then, nothing more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from .byte_ranges import (
    EXCLUSIVE,
    SET,
    SETLK,
    UNLOCKED,
    Waiter,
    at_once,
    attempt,
    drop,
    pack,
    refused,
    set_lock,
    span,
)
from .errors import LedgerError, NameBusy

_WRITER = 0
_GATE = 1
_COUNT = 2
_SESSIONS = 1 << 32
PLACES = 2 << 32
_FOLDERS = 3 << 32
NAMES = 4 << 32

_ALL_NAMES = 1 << 32
"""Bytes of all names; and as many of all places."""

_MOST_IDLE = 64
"""Descriptors kept for the next change."""


_TO_WRITE = span(fcntl.F_WRLCK, _WRITER)
_WRITTEN = span(fcntl.F_UNLCK, _WRITER)
_ALL = span(fcntl.F_UNLCK, 0, 0)
_EVERY_NAME = span(fcntl.F_WRLCK, NAMES, _ALL_NAMES)
_EVERY_PLACE = span(fcntl.F_RDLCK, PLACES, _ALL_NAMES)

COUNTING, WANTED = 0, 1
"""The flags, by their places in the file: changes have to look out for a count; somebody waits, or
has waited, for a lock."""
_FLAGS = 2


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
        self._keeps_writing = False
        self.before_locking: Callable[[], None] = lambda: None
        """Called before names are locked or counts begin."""
        self._fd = self._open()
        try:
            self._lengthen()
            self.flags = mmap.mmap(self._fd, _FLAGS, prot=mmap.PROT_READ)
        except BaseException as error:
            self._close(self._fd)
            if isinstance(error, OSError):
                raise LedgerError(f"the ledger's locks {path}: {error.strerror}") from error
            raise

    def _lengthen(self) -> None:
        """Make room for the flags, in a new file or one that had fewer."""
        with self.writing():
            size = os.fstat(self._fd).st_size
            if size < _FLAGS:
                os.pwrite(self._fd, bytes(_FLAGS - size), size)

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
        fd = self.open_descriptor()
        try:
            yield fd
        finally:
            self.let_go(fd)

    def open_descriptor(self) -> int:
        """Return a descriptor to hold locks by, which holds none."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def close_descriptor(self, fd: int) -> None:
        """Close what `open_descriptor` returned, and let go of what it holds. Idempotent."""
        self._close(fd)

    def let_go(self, fd: int) -> None:
        """Give up all locks held by a descriptor."""
        if fd in self._fds and len(self._idle) < _MOST_IDLE:
            at_once(fd, SETLK, _ALL)
            self._idle.append(fd)
        else:
            self._close(fd)

    def close(self) -> None:
        """Let go of everything but what `changing` and `counting` hold."""
        self.flags.close()
        self._close(self._fd)
        while self._idle:
            self._close(self._idle.pop())

    def leave_to_parent(self) -> None:
        """In a child after a fork: close what was inherited, whoever held it.

        A lock lasts until the last copy of its descriptor is closed, and the child would hold
        names that threads of the parent have long let go.
        """
        self._idle.clear()
        self.flags.close()
        for fd in list(self._fds):
            self._close(fd)

    # -- waiting

    def _take(self, fd: int, flock: bytes) -> None:
        """Lock bytes as soon as nobody else has them, and let those who may do without know."""
        if set_lock(fd, flock):
            return
        self._raise_flag(WANTED, b"\1")
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, flock)
        except OSError as error:
            raise LedgerError(f"the ledger's locks: {error.strerror}") from error

    def _wait(self, fd: int, kind: int, byte: int) -> None:
        self._take(fd, span(kind, byte))

    def _wait_within(self, seconds: float, fd: int, byte: int) -> None:
        """Lock a byte within so many seconds. Raises NameBusy: the descriptor is gone then."""
        flock = span(fcntl.F_WRLCK, byte)
        if set_lock(fd, flock):
            return
        self._raise_flag(WANTED, b"\1")
        Waiter(fd, flock, self._close).within(seconds)

    def answer(self) -> None:
        """Take back what the flag WANTED says: who waits gets the lock now."""
        self._raise_flag(WANTED, b"\0")

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
        if not self._keeps_writing and at_once(self._fd, SETLK, _TO_WRITE):
            self._take(self._fd, _TO_WRITE)

    def end_writing(self) -> None:
        """Let others write, unless this process keeps it up."""
        if not self._keeps_writing:
            at_once(self._fd, SETLK, _WRITTEN)

    def keep_writing(self) -> bool:
        """Be the one process that writes, until `stop_writing`; returns whether that is so."""
        self._keeps_writing = set_lock(self._fd, _TO_WRITE)
        return self._keeps_writing

    def stop_writing(self) -> None:
        """Let others write."""
        self._keeps_writing = False
        self.end_writing()

    def begin_session(self, session: int) -> None:
        """Show that the session lives, for as long as this object is not closed."""
        self._wait(self._fd, fcntl.F_WRLCK, _SESSIONS + session)

    def is_dead(self, session: int) -> bool:
        """Whether the process of another session has ended."""
        with self._holder() as fd:
            return attempt(fd, fcntl.F_WRLCK, _SESSIONS + session)

    # -- names

    def changing(
        self, place: str, names: Iterable[str], patience: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold names exclusively, waiting for them, each for `patience` seconds at most."""
        return _Changing(self, place, list(names), patience)

    def lock_names(self, place: str, names: Sequence[str], patience: float | None = None) -> int:
        """Wait for names and hold them; returns what `let_go` takes. Raises NameBusy."""
        self.before_locking()
        fd = self.open_descriptor()
        try:
            self._enter(fd, place, names)
            for byte in sorted({_checksum(place, name) for name in names}):
                if patience is None:
                    self._wait(fd, fcntl.F_WRLCK, NAMES + byte)
                else:
                    self._wait_within(patience, fd, NAMES + byte)
        except NameBusy:
            raise  # who waits in the kernel has the descriptor now
        except BaseException:
            self.let_go(fd)
            raise
        return fd

    @contextmanager
    def trying(self, place: str, name: str) -> Iterator[bool]:
        """Hold a name if nobody else does; yields whether that is so."""
        self.before_locking()
        with self._holder() as fd:
            self._enter(fd, place, [name])
            byte = NAMES + _checksum(place, name)
            free = attempt(fd, fcntl.F_WRLCK, byte)
            if not free:
                # Perhaps it is just among all that somebody holds; he gives that up with this.
                self._wait(fd, fcntl.F_WRLCK, _WRITER)
                drop(fd, _WRITER)
                free = attempt(fd, fcntl.F_WRLCK, byte)
            yield free

    def _enter(self, fd: int, place: str, names: Sequence[str]) -> None:
        """Keep counts of the names' folders waiting."""
        if not self.flags[COUNTING]:
            self._wait(fd, fcntl.F_RDLCK, PLACES + _checksum(place))
            if not self.flags[COUNTING]:
                return
        self._wait(fd, fcntl.F_RDLCK, _GATE)
        for folder in {folder for name in names for folder in _folders(name)}:
            self._wait(fd, fcntl.F_RDLCK, _FOLDERS + _checksum(place, folder))
        drop(fd, _GATE)

    # -- names of new items, by a descriptor for many of them

    def share_place(self, fd: int, byte: int) -> bool:
        """Keep counts of a place waiting, if that needs no waiting itself."""
        return attempt(fd, fcntl.F_RDLCK, byte)

    def share_folders(
        self, fd: int, place: str, name: str, shared: Container[int]
    ) -> Sequence[int] | None:
        """Keep counts of the folders above a name waiting, if that needs no waiting itself.

        Returns their bytes, or None where somebody counts one of them, or is about to: nothing new
        is held then.

        Args:
            shared: those that are held so by the descriptor already.
        """
        if not attempt(fd, fcntl.F_RDLCK, _GATE):
            return None
        try:
            above = sorted({_FOLDERS + _checksum(place, folder) for folder in _folders(name)})
            for index, byte in enumerate(above):
                if byte not in shared and not attempt(fd, fcntl.F_RDLCK, byte):
                    for taken in above[:index]:
                        if taken not in shared:
                            drop(fd, taken)
                    return None
            return above
        finally:
            drop(fd, _GATE)

    def take_name(self, fd: int, byte: int) -> bool:
        """Hold a name, if that needs no waiting."""
        return at_once(fd, SETLK, pack(EXCLUSIVE, SET, byte, 1, 0)) == 0 or refused()

    def take_all(self, fd: int) -> bool:
        """Hold all names and keep all counts waiting, if that needs no waiting; where it returns
        False, some of that may be so."""
        return set_lock(fd, _EVERY_NAME) and set_lock(fd, _EVERY_PLACE)

    def drop(self, fd: int, byte: int) -> None:
        """Let go of a name, a folder or a place."""
        if at_once(fd, SETLK, pack(UNLOCKED, SET, byte, 1, 0)) != 0:
            refused()

    def drop_all_but(self, fd: int, kept: Iterable[int]) -> None:
        """Let go of all names, folders and places but some, and of those never."""
        start = PLACES
        for byte in sorted(kept):
            if byte > start:
                set_lock(fd, span(fcntl.F_UNLCK, start, byte - start))
            start = byte + 1
        set_lock(fd, span(fcntl.F_UNLCK, start, NAMES + _ALL_NAMES - start))

    # -- counts

    @contextmanager
    def counting(self, place: str) -> Iterator[None]:
        """Be the only one who counts a place, and let all changes know."""
        self.before_locking()
        with self._holder() as fd:
            self._wait(fd, fcntl.F_WRLCK, _COUNT)
            self._raise_flag(COUNTING, b"\1")
            try:
                self._wait(fd, fcntl.F_WRLCK, PLACES + _checksum(place))
                drop(fd, PLACES + _checksum(place))
                yield
            finally:
                self._raise_flag(COUNTING, b"\0")

    def _raise_flag(self, flag: int, value: bytes) -> None:
        try:
            os.pwrite(self._fd, value, flag)
        except OSError as error:
            raise LedgerError(f"the ledger's locks {self._path}: {error.strerror}") from error

    @contextmanager
    def listing(self, place: str, folder: str) -> Iterator[None]:
        """Wait until no change beneath a folder is under way, and keep new ones waiting."""
        with self._holder() as fd:
            self._wait(fd, fcntl.F_WRLCK, _GATE)
            self._wait(fd, fcntl.F_WRLCK, _FOLDERS + _checksum(place, folder))
            drop(fd, _GATE)
            yield


class _Changing:
    """Names held for a change. A class, since a generator takes three times as long."""

    __slots__ = ("_fd", "_locks", "_names", "_patience", "_place")

    def __init__(
        self, locks: ByteLocks, place: str, names: Sequence[str], patience: float | None
    ) -> None:
        self._locks, self._place, self._names = locks, place, names
        self._patience = patience

    def __enter__(self) -> None:
        self._fd = self._locks.lock_names(self._place, self._names, self._patience)

    def __exit__(self, *_: object) -> None:
        self._locks.let_go(self._fd)
