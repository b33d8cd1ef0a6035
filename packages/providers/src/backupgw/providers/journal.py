"""Uploads that were interrupted, so that the next one of the same file carries on.

One small file an upload, in a folder of the state: which file it was, and the token by which the
place finds what it has of it. Tokens hold no secret. While somebody uploads, the file is locked, so
that two never carry on the same upload; the lock ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError

ABANDONED = 7 * 86_400.0
"""Seconds after which an upload that nobody carried on is given up."""


class BeingUploaded(BackendError):
    """Somebody uploads to that name at this moment."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was when its upload began. Another size, time or inode is another file."""

    path: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Source:
        """Return what `status` says."""
        absolute = os.path.abspath(path)
        return cls(absolute, status.st_size, status.st_mtime_ns, status.st_ino)


class Entry:
    """One upload, ours while its block runs.

    Attributes:
        token: by which it is carried on; None where it begins anew.
        stale: of an upload to the same name of a file that has changed since; to be given up.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source
        self.token: str | None = None
        self.stale: str | None = None

    def save(self, token: str) -> None:
        """Keep a token; it survives this process."""
        self.token = token

    def forget(self) -> None:
        """There is nothing to carry on any more."""
        self.token = None


class _FileEntry(Entry):
    def __init__(self, name: str, source: Source, path: Path, fd: int) -> None:
        super().__init__(name, source)
        self._path = path
        self._fd = fd
        told = _record(os.pread(fd, os.fstat(fd).st_size, 0))
        if told is not None:
            known, token = told
            if known == source:
                self.token = token
            else:
                self.stale = token

    def save(self, token: str) -> None:
        if token == self.token:
            return
        super().save(token)
        source = self.source
        text = json.dumps(
            {
                "name": self.name,
                "file": [source.path, source.size, source.mtime_ns, source.inode],
                "token": token,
                "saved": time.time(),
            }
        ).encode()
        # In place, since the lock is on this very file; a record that was cut off is none.
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))
        os.fsync(self._fd)

    def forget(self) -> None:
        super().forget()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class Journal:
    """Interrupted uploads, remembered as long as this object lives."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    @contextlib.contextmanager
    def uploading(self, name: str, source: Source) -> Iterator[Entry]:
        """Yield the upload of a file to a name.

        Raises:
            BeingUploaded: somebody else does that now.
        """
        entry = Entry(name, source)
        if (known := self._entries.get(name)) is not None:
            if known.source == source:
                entry.token = known.token
            else:
                entry.stale = known.token
        try:
            yield entry
        finally:
            if entry.token is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = entry

    def clean(self, place: Backend, older_than: float) -> int:
        """Give up the uploads that nobody carried on for so many seconds; return how many.

        Raises:
            BackendError: the place cannot be told so.
        """
        del place, older_than
        return 0


class FileJournal(Journal):
    """Interrupted uploads, remembered in a folder.

    Args:
        folder: made when there is something to remember.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    @contextlib.contextmanager
    def uploading(self, name: str, source: Source) -> Iterator[Entry]:
        path = self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = _locked(path)
        except OSError as error:
            raise BackendError(
                f"the folder of interrupted uploads, {self._folder}: {error.strerror}"
            ) from error
        if fd is None:
            raise BeingUploaded(f"{name}: another process uploads to that name now")
        try:
            entry = _FileEntry(name, source, path, fd)
            yield entry
        finally:
            if entry.token is None:
                entry.forget()
            os.close(fd)

    def clean(self, place: Backend, older_than: float) -> int:
        given_up = 0
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            fd = _locked(path)
            if fd is None:
                continue
            try:
                status = os.fstat(fd)
                if time.time() - status.st_mtime < older_than:
                    continue
                told = _record(os.pread(fd, status.st_size, 0))
                if told is not None:
                    with contextlib.suppress(ValueError):  # of a place that is another one now
                        place.abort_writer(told[1])
                        given_up += 1
                path.unlink(missing_ok=True)
            finally:
                os.close(fd)
        return given_up


def _locked(path: Path) -> int | None:
    """Open and lock a file, made where there is none; None where somebody holds it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last user removed it just before we had it


def _record(content: bytes) -> tuple[Source, str] | None:
    try:
        match json.loads(content):
            case {
                "file": [str(path), int(size), int(mtime), int(inode)],
                "token": str(token),
            }:
                return Source(path, size, mtime, inode), token
    except ValueError:
        pass
    return None
