"""How a value gets into a folder: unnamed or under a hidden name, then linked or renamed.

The order of system calls is the promise (`Backend`, rule 3 of the design): sync the file, give it
its name, sync the folder.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Sequence

from ..names import check_path
from .base import CHUNK
from .beneath import exchange
from .checkpoint_tokens import write_token
from .errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from .gated import GatedWriter
from .plan import Plan
from .posixfs_copying import fill
from .posixfs_errors import translate
from .posixfs_leftovers import PART, TEMPORARY
from .posixfs_look import file_number, is_new
from .posixfs_naming import NO_LINK, Modes, make_folder, rename_new
from .posixfs_writeback import FIRST as WRITEBACK_FIRST
from .posixfs_writeback import Writeback

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}
"""What file systems and old kernels say to O_TMPFILE; a missing folder was met before."""

_OPEN_FILES = "/proc/self/fd"
"""By which an unnamed file gets its name; there is none in a bare chroot."""


class PosixWriter(GatedWriter):
    """A value on its way into a folder.

    Folders that are missing are made when the value gets its name, so that a refused one leaves
    no trace. Until then the value lies in the nearest folder that exists, `folder`, which the
    writer takes over and closes.

    Args:
        missing: the folders to be made below `folder`, outermost first.
        local: the folder surely lies on a disk of this machine.
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
        open_kept: Callable[[str], int],
        local: bool = False,
    ) -> None:
        self._open_kept = open_kept
        self.looks_at_once = local
        self._folder = folder
        self._fd = fd
        self._hidden = hidden
        self._grown: list[int] = []
        """Folders that got a new one which they were not synced for yet, outermost first."""
        self._plan = plan
        self._missing = missing
        self._modes = modes
        self._sync = sync
        self._written = 0
        self._digest = hashlib.sha256() if plan.expected_hash is not None else None
        long = plan.size is None or plan.size > WRITEBACK_FIRST
        self._writeback = Writeback(fd) if sync and long else None

    @classmethod
    def start(
        cls,
        folder: int,
        plan: Plan,
        *,
        missing: Sequence[str],
        modes: Modes,
        sync: bool,
        open_kept: Callable[[str], int],
        local: bool,
    ) -> PosixWriter:
        """Begin a value. Raises OSError, with `folder` still open."""
        hidden = None
        try:
            if not _can_name(_OPEN_FILES):
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
        return cls(
            folder,
            fd,
            hidden,
            plan,
            missing=missing,
            modes=modes,
            sync=sync,
            open_kept=open_kept,
            local=local,
        )

    @classmethod
    def resume(
        cls,
        folder: int,
        part: str,
        plan: Plan,
        *,
        modes: Modes,
        sync: bool,
        open_kept: Callable[[str], int],
    ) -> PosixWriter:
        """Carry on a checkpoint. Raises OSError or BackendError, with `folder` still open."""
        fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink == 0:
                raise ObjectNotFound(f"checkpoint of {plan.name} is gone")
            writer = cls(
                folder,
                fd,
                part,
                plan,
                missing=(),
                modes=modes,
                sync=sync,
                open_kept=open_kept,
            )
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
        if self._writeback is not None:
            self._writeback = Writeback(self._fd, self._written)
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
        self._plan.check_room(self._written + len(view))
        if self._digest is not None:
            self._digest.update(view)
        try:
            while view:
                count = os.write(self._fd, view)
                self._written += count
                view = view[count:]
        except OSError as error:
            raise translate(error, self._plan.name) from error
        if self._writeback is not None:
            self._writeback.written(self._written)

    def write_file(self, fd: int) -> None:
        """Write all that another open file holds, shared with it where the file system can.

        Nothing was written before, and no hash is expected.
        """
        self._require_open()
        try:
            self._written = fill(self._fd, fd)
        except OSError as error:
            raise translate(error, self._plan.name) from error

    def surely_new(self, known_as: str) -> bool:  # noqa: ARG002 - the signature is GatedWriter's
        if self._missing:
            return False
        return is_new(self._folder, self._plan.name.rpartition("/")[2], local=self.looks_at_once)

    def file_number(self) -> int:
        return file_number(self._fd) if self.looks_at_once and not self._missing else 0

    def commit(self) -> None:
        gate, plan = self.gate, self._plan
        if gate is not None and plan.size is not None:
            self.gate = None
            gate.commit(self, plan.size)
            return
        self.check()
        segment = plan.name.rpartition("/")[2]
        try:
            if self._sync:
                os.fsync(self._fd)
            self._make_missing()
            if plan.if_absent:
                self._name_new(segment)
            else:
                self._name_over(segment)
            self._sync_folders()
        except FileExistsError as error:
            raise ObjectExists(f"{plan.name} exists") from error
        except IsADirectoryError as error:
            raise BackendError(f"{plan.name} is a folder") from error
        except OSError as error:
            raise translate(error, plan.name) from error
        self._hidden = None
        self._close()

    def commit_over(self, kept: str) -> None:
        self.check()
        name, kept_parent, kept_segment = self._plan.name, *check_path(kept).rpartition("/")[::2]
        if self._missing:
            raise ObjectNotFound(name)
        kept_folder = -1
        try:
            if self._sync:
                os.fsync(self._fd)
            kept_folder = self._open_kept(kept_parent)
            self._name_over_keeping(name.rpartition("/")[2], kept_folder, kept_segment)
            if self._sync:
                os.fsync(self._folder)
                os.fsync(kept_folder)
        except OSError as error:
            raise translate(error, name) from error
        finally:
            if kept_folder >= 0:
                os.close(kept_folder)
        self._hidden = None
        self._close()

    def _name_over_keeping(self, segment: str, kept_folder: int, kept: str) -> None:
        """Put the file where the old one is to be kept, and let the two change names."""
        try:
            old = os.stat(segment, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ObjectNotFound(self._plan.name) from error
        if stat.S_ISDIR(old.st_mode):
            raise BackendError(f"{self._plan.name} is a folder")
        if self._hidden is None:
            self._hidden = TEMPORARY + secrets.token_hex(8)
            link_unnamed(self._fd, self._folder, self._hidden)
        try:
            os.rename(self._hidden, kept, src_dir_fd=self._folder, dst_dir_fd=kept_folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise UnsupportedOperation(f"{self._plan.name} is on another file system") from error
        try:
            if self._sync:
                os.fsync(kept_folder)
            exchange(kept_folder, kept, self._folder, segment)
        except OSError as error:
            os.rename(kept, self._hidden, src_dir_fd=kept_folder, dst_dir_fd=self._folder)
            if error.errno == errno.ENOENT:
                raise ObjectNotFound(self._plan.name) from error
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise UnsupportedOperation("the file system exchanges no names") from error
            raise

    def check(self) -> None:
        self._require_open()
        digest = None if self._digest is None else self._digest.hexdigest()
        self._plan.check_content(self._written, digest)

    def _make_missing(self) -> None:
        """Make the folders that were missing; the last of them becomes the writer's folder."""
        while self._missing:
            segment, *rest = self._missing
            # One sync of a file system often serves all folders, so they wait for the value's.
            make_folder(self._folder, segment, self._modes, sync=False)
            below = os.open(segment, _FOLDER, dir_fd=self._folder)
            if self._hidden is not None:
                try:
                    os.rename(self._hidden, self._hidden, src_dir_fd=self._folder, dst_dir_fd=below)
                except OSError:
                    os.close(below)
                    raise
            self._grown.append(self._folder)
            self._folder, self._missing = below, rest

    def _sync_folders(self) -> None:
        """Make the value's name durable, and the new folders on the way to it."""
        if self._sync:
            os.fsync(self._folder)
            for folder in reversed(self._grown):
                os.fsync(folder)

    def _name_new(self, segment: str) -> None:
        """Give the file its name unless that is taken; of several writers one wins."""
        if self._hidden is None:
            link_unnamed(self._fd, self._folder, segment)
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
            if error.errno not in NO_LINK:
                raise
            rename_new(self._folder, self._hidden, segment)
        else:
            os.unlink(self._hidden, dir_fd=self._folder)
        self._hidden = None

    def _name_over(self, segment: str) -> None:
        """Give the file its name, atomically replacing what has it."""
        if self._hidden is None:
            try:
                link_unnamed(self._fd, self._folder, segment)
            except FileExistsError:
                pass  # it takes a second name, and the old value's place by that
            else:
                return
            hidden = TEMPORARY + secrets.token_hex(8)
            link_unnamed(self._fd, self._folder, hidden)
            self._hidden = hidden
        os.replace(self._hidden, segment, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._hidden = None

    def abort(self) -> None:
        if self._fd >= 0:
            hidden, self._hidden = self._hidden, None
            folder, self._folder = self._folder, -1
            fd, self._fd = self._fd, -1
            self._end_writeback()
            _discard(folder, fd, hidden)
            os.close(folder)
            self._close_grown()

    def _name_part(self) -> str:
        """Give the bytes a name by which they are found again, and return it."""
        self._make_missing()
        if self._hidden is None or not self._hidden.startswith(PART):
            part = PART + secrets.token_hex(16)
            if self._hidden is None:
                link_unnamed(self._fd, self._folder, part)
            else:
                os.rename(self._hidden, part, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._hidden = part
        return self._hidden

    def mark(self) -> str:
        self._require_open()
        if self._digest is not None:
            return super().mark()
        try:
            part = self._name_part()
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise translate(error, self._plan.name) from error
        return write_token(self._plan, part)

    def leave(self) -> None:
        if self._fd < 0 or self._hidden is None or not self._hidden.startswith(PART):
            self.abort()
            return
        self._hidden = None
        self._close()

    def checkpoint(self) -> str:
        self._require_open()
        gate, plan = self.gate, self._plan
        if gate is not None and plan.size is not None:
            self.gate = None
            return gate.checkpoint(self, plan.size)
        try:
            part = self._name_part()
            if self._sync and self._written:  # where nothing came, there is nothing to be kept
                os.fsync(self._fd)
            if self._written or self._grown:
                self._sync_folders()
            os.utime(self._fd)
        except OSError as error:
            raise translate(error, self._plan.name) from error
        token = write_token(self._plan, part)
        self._hidden = None
        self._close()
        return token

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        folder, self._folder = self._folder, -1
        self._end_writeback()
        os.close(fd)
        os.close(folder)
        self._close_grown()

    def _end_writeback(self) -> None:
        if self._writeback is not None:
            self._writeback.close()
            self._writeback = None

    def _close_grown(self) -> None:
        while self._grown:
            os.close(self._grown.pop())


@functools.cache
def _can_name(open_files: str) -> bool:
    """Whether a file that has no name can be given one."""
    return os.path.isdir(open_files)


def link_unnamed(fd: int, folder: int, name: str) -> None:
    """Give a file opened with O_TMPFILE a name in a folder. Raises OSError."""
    # AT_EMPTY_PATH would need a capability; the way through /proc is open(2)'s own advice.
    os.link(f"{_OPEN_FILES}/{fd}", name, dst_dir_fd=folder, follow_symlinks=True)


def _discard(folder: int, fd: int, hidden: str | None) -> None:
    os.close(fd)
    if hidden is not None:
        try:
            os.unlink(hidden, dir_fd=folder)
        except OSError:
            return  # the place is gone or read-only by now; reap finds the file later
