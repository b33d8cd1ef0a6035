"""Opening files and folders beneath a root, and nowhere else.

Every path is resolved by the kernel below a folder descriptor: with openat2 in one call, where
there is none (Linux before 5.6, some containers) segment by segment with O_NOFOLLOW. No symbolic
link is followed, but for those whose target the operator listed: repositories that a server before
us had on other disks.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_CACHED = 0x20
_CONFINED = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS
_WANT_CACHED = _CONFINED | _RESOLVE_CACHED

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""How a folder is opened for listing, syncing and as a base of *at calls."""

_SCAN_DEPTH = 3
"""How many folder levels are searched for symbolic links at start: rest-server's deepest
repository folder, and the type folders in it."""


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_Syscall = Callable[[int, int, bytes, "ctypes._Pointer[_OpenHow]", int], int]


def _openat2_of(library: ctypes.CDLL) -> _Syscall:
    syscall = library.syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = (
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.POINTER(_OpenHow),
        ctypes.c_size_t,
    )
    return syscall


_libc = ctypes.CDLL(None, use_errno=True)
_waiting = _openat2_of(_libc)
_at_once = _openat2_of(ctypes.PyDLL(None, use_errno=True))
"""For what cannot block: it keeps the interpreter's lock, which threads fight over otherwise."""
_HOW_SIZE = ctypes.sizeof(_OpenHow)


@functools.cache
def _how(flags: int, mode: int, resolve: int) -> ctypes._Pointer[_OpenHow]:
    """Return the record for openat2, which only reads it; there are a dozen different ones."""
    return ctypes.pointer(_OpenHow(flags, mode, resolve))


_TO_LOOK = _how(os.O_PATH | os.O_CLOEXEC, 0, _CONFINED)
_TO_LOOK_AT_ONCE = _how(os.O_PATH | os.O_CLOEXEC, 0, _WANT_CACHED)


def _openat2(root: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _how(flags, mode, resolve)
    syscall = _at_once if resolve & _RESOLVE_CACHED else _waiting
    while True:
        fd = syscall(_SYS_OPENAT2, root, path, how, _HOW_SIZE)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), os.fsdecode(path))


def _openat2_works() -> bool:
    """Whether this kernel has openat2 and nothing (seccomp) keeps us from it."""
    try:
        os.close(_openat2(-100, b".", FOLDER, 0, _RESOLVE_BENEATH))  # -100: AT_FDCWD
    except OSError:
        return False
    return True


class Beneath:
    """A root folder and the ways to open what lies beneath it.

    Args:
        root: path of the folder; it may itself be a symbolic link.
        follow: folders outside the root to which symbolic links beneath it may lead.

    Raises:
        OSError: the root cannot be opened; so do all methods, with ELOOP for a link that is not
            to be followed.
    """

    def __init__(self, root: str, follow: Iterable[str] = ()) -> None:
        self.path = root
        self.fd = os.open(root, FOLDER)
        self._follow = frozenset(os.path.realpath(target) for target in follow)
        self._has_openat2 = _openat2_works()

    def close(self) -> None:
        """Close every descriptor held. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open `path`, relative to the root ("" is the root); return the descriptor."""
        flags |= os.O_CLOEXEC
        if self._has_openat2:
            try:
                return _openat2(
                    self.fd, path.encode(errors="surrogateescape") or b".", flags, mode, _CONFINED
                )
            except OSError as error:
                if error.errno != errno.ELOOP or not self._follow:
                    raise
        return self._walk(path, flags, mode)

    def open_nowait(self, path: str, flags: int) -> int | None:
        """Like `open`, if the file system's caches can tell at once; None where they cannot."""
        if not self._has_openat2:
            return None
        try:
            return _openat2(
                self.fd,
                path.encode(errors="surrogateescape") or b".",
                flags | os.O_CLOEXEC,
                0,
                _WANT_CACHED,
            )
        except OSError as error:
            # EINVAL: Linux before 5.12. ELOOP: perhaps a listed link, which open() knows.
            if error.errno in (errno.EAGAIN, errno.EINVAL, errno.ELOOP):
                return None
            raise

    def surely_missing(self, path: str) -> bool:
        """Whether there is nothing at `path`; False says nothing. Raises nothing, and so is quicker
        than `open` where that is the answer."""
        if not self._has_openat2:
            return False
        name = path.encode()
        fd = _at_once(_SYS_OPENAT2, self.fd, name, _TO_LOOK_AT_ONCE, _HOW_SIZE)
        if fd < 0 and ctypes.get_errno() == errno.EAGAIN:  # the caches do not know
            fd = _waiting(_SYS_OPENAT2, self.fd, name, _TO_LOOK, _HOW_SIZE)
        if fd >= 0:
            os.close(fd)
            return False
        return ctypes.get_errno() == errno.ENOENT

    def open_folder(self, path: str) -> int:
        """Open a folder for listing, syncing and as a base of *at calls."""
        fd = self.open_nowait(path, FOLDER)
        return self.open(path, FOLDER) if fd is None else fd

    def _walk(self, path: str, flags: int, mode: int) -> int:
        segments = path.split("/") if path else []
        fd = os.dup(self.fd)
        walked = ""
        try:
            for index, segment in enumerate(segments):
                last = index == len(segments) - 1
                walked = f"{walked}/{segment}" if walked else segment
                step_flags = flags if last else FOLDER
                step_mode = mode if last else 0
                try:
                    below = _open_here(fd, segment, step_flags, step_mode)
                except OSError as error:
                    # A link is ELOOP, or ENOTDIR where a folder was asked for.
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    below = self._open_linked(fd, segment, walked, step_flags, error)
                os.close(fd)
                fd = below
            if not segments:
                below = os.open(".", flags, mode, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_linked(
        self, parent: int, segment: str, walked: str, flags: int, error: OSError
    ) -> int:
        """Open the listed target of the link `segment`; raise ELOOP when it is not listed."""
        try:
            os.readlink(segment, dir_fd=parent)
        except OSError:
            raise error from None  # no link: what open said stands
        target = os.path.realpath(f"/proc/self/fd/{parent}/{segment}")
        if target not in self._follow:
            raise OSError(errno.ELOOP, f"symbolic link to {target}, which is not listed", walked)
        return os.open(target, flags)

    def follows(self, parent: int, segment: str) -> bool:
        """Whether `segment` in the folder `parent` is a link that the operator listed."""
        return (
            bool(self._follow)
            and os.path.realpath(f"/proc/self/fd/{parent}/{segment}") in self._follow
        )

    def unlisted_links(self) -> Iterator[tuple[str, str]]:
        """Yield (path, target) of the symbolic links near the root that are not followed.

        Looks three folder levels deep, where repositories and their type folders are.
        """
        yield from self._unlisted_below("", _SCAN_DEPTH)

    def _unlisted_below(self, folder: str, depth: int) -> Iterator[tuple[str, str]]:
        try:
            fd = self.open_folder(folder)
        except OSError:
            return  # it vanished, or is closed to us: opening it for a client will say so
        try:
            deeper = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_symlink():
                        if not self.follows(fd, entry.name):
                            yield path, os.readlink(entry.name, dir_fd=fd)
                    elif depth > 1 and entry.is_dir(follow_symlinks=False):
                        deeper.append(path)
        finally:
            os.close(fd)
        for path in deeper:
            yield from self._unlisted_below(path, depth - 1)


def _open_here(folder: int, segment: str, flags: int, mode: int) -> int:
    """Open an entry of `folder`; a symbolic link is ELOOP, or ENOTDIR for a folder's flags."""
    fd = os.open(segment, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH opens the link itself
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), segment)
    return fd


_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def rename_noreplace(
    folder: int, source: str, target: str, *, target_folder: int | None = None
) -> None:
    """Rename within one folder, or into `target_folder`, unless `target` exists.

    Raises:
        FileExistsError: it exists.
        OSError: EINVAL or ENOSYS where the file system or the C library cannot.
    """
    into = folder if target_folder is None else target_folder
    _renameat2(folder, source, into, target, _RENAME_NOREPLACE)


def exchange(folder: int, name: str, other_folder: int, other: str) -> None:
    """Let two entries change their names, in one step.

    Raises:
        FileNotFoundError: one of them does not exist.
        OSError: EINVAL or ENOSYS where the file system or the C library cannot.
    """
    _renameat2(folder, name, other_folder, other, _RENAME_EXCHANGE)


def _renameat2(folder: int, source: str, target_folder: int, target: str, flags: int) -> None:
    try:
        renameat2 = _libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    result = renameat2(
        ctypes.c_int(folder),
        os.fsencode(source),
        ctypes.c_int(target_folder),
        os.fsencode(target),
        ctypes.c_uint(flags),
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
