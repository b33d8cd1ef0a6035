"""How a value gets into a folder: unnamed or under a hidden name, then linked or renamed.

The order of system calls is the promise (`Backend`, rule 3 of the design): sync the file, give it
its name, sync the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ..names import InvalidName, check_path
from .base import CHUNK, Writer
from .beneath import rename_noreplace
from .errors import (
    BackendError,
    ContentMismatch,
    NameCollision,
    ObjectExists,
    ObjectNotFound,
)
from .posixfs_errors import translate
from .posixfs_leftovers import PART, TEMPORARY

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}
"""What file systems and old kernels say to O_TMPFILE; a missing folder was met before."""

_OPEN_FILES = "/proc/self/fd"
"""By which an unnamed file gets its name; there is none in a bare chroot."""

_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True, slots=True)
class Modes:
    """Permission bits of new files and folders."""

    file: int
    folder: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What open_writer was told."""

    name: str
    size: int | None
    if_absent: bool
    expected_hash: str | None


class PosixWriter(Writer):
    """A value on its way into a folder.

    Folders that are missing are made when the value gets its name, so that a refused one leaves
    no trace. Until then the value lies in the nearest folder that exists, `folder`, which the
    writer takes over and closes.

    Args:
        missing: the folders to be made below `folder`, outermost first.
    """

    def __init__(
        self,
        folder: int,
        fd: int,
        hidden: str | None,
        plan: Plan,
        *,
        missing: Sequence[str],
        modes: Modes,
        sync: bool,
    ) -> None:
        self._folder = folder
        self._fd = fd
        self._hidden = hidden
        self._plan = plan
        self._missing = missing
        self._modes = modes
        self._sync = sync
        self._written = 0
        self._digest = hashlib.sha256() if plan.expected_hash is not None else None

    @classmethod
    def start(
        cls, folder: int, plan: Plan, *, missing: Sequence[str], modes: Modes, sync: bool
    ) -> PosixWriter:
        """Begin a value. Raises OSError, with `folder` still open."""
        hidden = None
        try:
            if not os.path.isdir(_OPEN_FILES):
                raise OSError(errno.EOPNOTSUPP, "an unnamed file could not get its name")
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, modes.file, dir_fd=folder)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            hidden = TEMPORARY + secrets.token_hex(8)
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(hidden, flags, modes.file, dir_fd=folder)
        try:
            if modes.file & 0o077:
                os.fchmod(fd, modes.file)
        except OSError:
            _discard(folder, fd, hidden)
            raise
        return cls(folder, fd, hidden, plan, missing=missing, modes=modes, sync=sync)

    @classmethod
    def resume(cls, folder: int, part: str, plan: Plan, *, modes: Modes, sync: bool) -> PosixWriter:
        """Carry on a checkpoint. Raises OSError or BackendError, with `folder` still open."""
        fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink == 0:
                raise ObjectNotFound(f"checkpoint of {plan.name} is gone")
            writer = cls(folder, fd, part, plan, missing=(), modes=modes, sync=sync)
            writer._read_again()
        except BlockingIOError as error:
            os.close(fd)
            raise BackendError(
                f"checkpoint of {plan.name} is being written by another process", retryable=True
            ) from error
        except BaseException:
            os.close(fd)
            raise
        return writer

    def _read_again(self) -> None:
        """Catch up with what was written before the checkpoint."""
        self._written = os.fstat(self._fd).st_size
        if self._digest is not None:
            position = 0
            while chunk := os.pread(self._fd, CHUNK, position):
                self._digest.update(chunk)
                position += len(chunk)
        os.lseek(self._fd, 0, os.SEEK_END)

    @property
    def offset(self) -> int:
        return self._written

    def _require_open(self) -> None:
        if self._fd < 0:
            raise BackendError(f"{self._plan.name}: the writer has ended")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._require_open()
        view = memoryview(data).cast("B")
        if self._plan.size is not None and self._written + len(view) > self._plan.size:
            raise ContentMismatch(f"{self._plan.name}: more than the {self._plan.size} bytes due")
        if self._digest is not None:
            self._digest.update(view)
        try:
            while view:
                count = os.write(self._fd, view)
                self._written += count
                view = view[count:]
        except OSError as error:
            raise translate(error, self._plan.name) from error

    def commit(self) -> None:
        self._require_open()
        plan = self._plan
        if plan.size is not None and self._written != plan.size:
            raise ContentMismatch(f"{plan.name}: {self._written} of {plan.size} bytes came")
        if self._digest is not None and self._digest.hexdigest() != plan.expected_hash:
            raise ContentMismatch(
                f"{plan.name}: the content has SHA-256 {self._digest.hexdigest()}"
            )
        segment = plan.name.rpartition("/")[2]
        try:
            if self._sync:
                os.fsync(self._fd)
            self._make_missing()
            if plan.if_absent:
                self._name_new(segment)
            else:
                self._name_over(segment)
            if self._sync:
                os.fsync(self._folder)
        except FileExistsError as error:
            raise ObjectExists(f"{plan.name} exists") from error
        except IsADirectoryError as error:
            raise BackendError(f"{plan.name} is a folder") from error
        except OSError as error:
            raise translate(error, plan.name) from error
        self._hidden = None
        self._close()

    def _make_missing(self) -> None:
        """Make the folders that were missing; the last of them becomes the writer's folder."""
        while self._missing:
            segment, *rest = self._missing
            make_folder(self._folder, segment, self._modes, sync=self._sync)
            below = os.open(segment, _FOLDER, dir_fd=self._folder)
            if self._hidden is not None:
                try:
                    os.rename(self._hidden, self._hidden, src_dir_fd=self._folder, dst_dir_fd=below)
                except OSError:
                    os.close(below)
                    raise
            os.close(self._folder)
            self._folder, self._missing = below, rest

    def _name_new(self, segment: str) -> None:
        """Give the file its name unless that is taken; of several writers one wins."""
        if self._hidden is None:
            _link_unnamed(self._fd, self._folder, segment)
            return
        try:
            os.link(
                self._hidden,
                segment,
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _rename_new(self._folder, self._hidden, segment)
        else:
            os.unlink(self._hidden, dir_fd=self._folder)
        self._hidden = None

    def _name_over(self, segment: str) -> None:
        """Give the file its name, atomically replacing what has it."""
        if self._hidden is None:
            hidden = TEMPORARY + secrets.token_hex(8)
            _link_unnamed(self._fd, self._folder, hidden)
            self._hidden = hidden
        os.replace(self._hidden, segment, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._hidden = None

    def abort(self) -> None:
        if self._fd >= 0:
            hidden, self._hidden = self._hidden, None
            folder, self._folder = self._folder, -1
            fd, self._fd = self._fd, -1
            _discard(folder, fd, hidden)
            os.close(folder)

    def checkpoint(self) -> str:
        self._require_open()
        try:
            self._make_missing()
            if self._hidden is None or not self._hidden.startswith(PART):
                part = PART + secrets.token_hex(16)
                if self._hidden is None:
                    _link_unnamed(self._fd, self._folder, part)
                else:
                    os.rename(self._hidden, part, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                self._hidden = part
            if self._sync:
                os.fsync(self._fd)
                os.fsync(self._folder)
            os.utime(self._fd)
        except OSError as error:
            raise translate(error, self._plan.name) from error
        token = _write_token(self._plan, self._hidden)
        self._hidden = None
        self._close()
        return token

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        folder, self._folder = self._folder, -1
        os.close(fd)
        os.close(folder)


def _link_unnamed(fd: int, folder: int, name: str) -> None:
    # AT_EMPTY_PATH would need a capability; the way through /proc is open(2)'s own advice.
    os.link(f"{_OPEN_FILES}/{fd}", name, dst_dir_fd=folder, follow_symlinks=True)


def _rename_new(folder: int, source: str, target: str) -> None:
    """Rename unless `target` exists, on file systems that have no hard links."""
    try:
        rename_noreplace(folder, source, target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    else:
        return
    # Neither way exists: a lock on the folder makes it atomic among this machine's gateways.
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        try:
            os.stat(target, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _discard(folder: int, fd: int, hidden: str | None) -> None:
    os.close(fd)
    if hidden is not None:
        try:
            os.unlink(hidden, dir_fd=folder)
        except OSError:
            return  # the place is gone or read-only by now; reap finds the file later


def make_folder(parent: int, segment: str, modes: Modes, *, sync: bool) -> None:
    """Make one folder, durably; one that exists is fine. Raises OSError."""
    try:
        os.mkdir(segment, modes.folder, dir_fd=parent)
        if modes.folder & 0o077:
            os.chmod(segment, modes.folder, dir_fd=parent)
    except FileExistsError:
        pass  # made by somebody else just now, who may not have synced it yet
    if sync:
        os.fsync(parent)


def make_root(path: str, modes: Modes, *, sync: bool) -> None:
    """Make the folder of a place, durably, with those above it. Raises OSError.

    Those above are nobody's in particular and get what the umask leaves them; one that exists
    keeps its modes.
    """
    path = os.path.abspath(path)
    missing = []
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        os.makedirs(folder, exist_ok=True)  # somebody else may be making it, too
    try:
        os.mkdir(path, modes.folder)
        if modes.folder & 0o077:
            os.chmod(path, modes.folder)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    if sync:
        for folder in (*missing, above):
            _sync_path(folder)


def _sync_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refuse_case_collision(folder: int, segment: str) -> None:
    """On a file system that ignores case, refuse a name that would meet another item.

    Raises:
        NameCollision: an entry differs from `segment` only in case.
    """
    try:
        os.stat(segment, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.casefold() == segment.casefold()]
    if names and segment not in names:
        raise NameCollision(f"{segment} differs only in case from {names[0]}")


def _write_token(plan: Plan, part: str) -> str:
    return json.dumps([1, plan.name, plan.size, plan.if_absent, plan.expected_hash, part])


def read_token(token: str) -> tuple[Plan, str]:
    """Return what a token stands for: the plan and the part's name in its folder.

    Raises:
        ValueError: it is not one that a checkpoint returned.
    """
    try:
        version, name, size, if_absent, expected_hash, part = json.loads(token)
        if version != 1 or not re.fullmatch(rf"{re.escape(PART)}[0-9a-f]{{32}}", part):
            raise ValueError(part)
        return Plan(check_path(name), size, bool(if_absent), expected_hash), part
    except (ValueError, TypeError, InvalidName) as error:
        raise ValueError("not a token of a checkpoint") from error
