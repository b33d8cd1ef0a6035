"""The adapter `wings`: archives in one folder, `<backup_directory>/<uuid>.tar.gz`, as Wings has it.

An archive is there whole or not at all: it is written under another name, synced, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from backupgw.kvstore.layers.throttle_rate import Pace, timetable

from .archive import PIECE, ArchiveError, Made, Tell, make_archive, nobody, read_label
from .ignore import IgnoreRules
from .wings_file import Compression

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SUFFIX = ".tar.gz"
_NEW = ".new"

T = TypeVar("T")


class LocalArchives:
    """The folder of archives. Safe to use from any thread and process; one uuid has one writer.

    Args:
        folder: made where it is missing, mode 0700.
        write_limit: MiB a second for all archives of this object together, 0 for no limit.
    """

    def __init__(self, folder: str, *, write_limit: int = 0) -> None:
        self._path = folder
        rate = "off" if not write_limit else f"{write_limit * 1024}k"
        self._pace = Pace(timetable("write_limit", rate))

    def make(
        self,
        uuid: str,
        root: int,
        rules: IgnoreRules,
        *,
        compression: Compression = Compression.BEST_SPEED,
        label: str = "",
        tell: Tell = nobody,
    ) -> Made:
        """Write an archive; one of that uuid is replaced, once the new one is whole.

        Arguments but `uuid` as `make_archive`.

        Raises:
            ArchiveError: a file cannot be read, or the folder cannot be written; nothing is left.
        """
        return self.store(
            uuid,
            lambda write: make_archive(
                root, rules, write, compression=compression, label=label, tell=tell
            ),
        )

    def _write(self, folder: int, name: str, fill: Callable[[Callable[[bytes], object]], T]) -> T:
        temporary = name + _NEW
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)  # of a writer that died
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb", buffering=PIECE) as file:

                def write(data: bytes) -> None:
                    self._pace.take(len(data))
                    file.write(data)

                made = fill(write)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        return made

    def open(self, uuid: str) -> int:
        """Return a descriptor of an archive, for reading.

        Raises:
            FileNotFoundError: there is none.
            ArchiveError: what is there is no archive, or cannot be read.
        """
        try:
            with self._opened() as folder:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(_name(uuid), flags, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise ArchiveError(f"the archive {uuid} cannot be read: {reason}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ArchiveError(f"the archive {uuid} is not a regular file")
        return descriptor

    def size(self, uuid: str) -> int:
        """Return the bytes of an archive. Raises what `open` raises."""
        descriptor = self.open(uuid)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def label(self, uuid: str) -> str:
        """Return the label that an archive was made with; "" for none. Raises as `open`."""
        descriptor = self.open(uuid)
        try:
            return read_label(os.pread(descriptor, 512, 0))
        finally:
            os.close(descriptor)

    def store(self, uuid: str, fill: Callable[[Callable[[bytes], object]], T]) -> T:
        """Keep an archive that comes from elsewhere, once it is whole.

        Args:
            fill: called with what takes the bytes; what it returns is returned.

        Raises:
            ArchiveError: the folder cannot be written.
        """
        try:
            with self._opened(make=True) as folder:
                return self._write(folder, _name(uuid), fill)
        except OSError as error:
            raise ArchiveError(
                f"{self._path} cannot be written: {error.strerror or error}"
            ) from error

    def sha1(self, uuid: str, tell: Callable[[int], object] = lambda _: None) -> str:
        """Read an archive and return its checksum. Raises what `open` raises.

        Args:
            tell: told of the bytes read so far.
        """
        digest = hashlib.sha1(usedforsecurity=False)
        done = 0
        with open(self.open(uuid), "rb", buffering=0) as file:
            while data := file.read(PIECE):
                digest.update(data)
                done += len(data)
                tell(done)
        return digest.hexdigest()

    def delete(self, uuid: str) -> bool:
        """Remove an archive, and what is left of one that was not finished.

        Returns:
            Whether there was a whole one.

        Raises:
            ArchiveError: it cannot be removed.
        """
        there = False
        try:
            name = _name(uuid)
            with self._opened() as folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name + _NEW, dir_fd=folder)
                os.unlink(name, dir_fd=folder)
                there = True
                os.fsync(folder)
        except FileNotFoundError:
            return there
        except OSError as error:
            raise ArchiveError(
                f"the archive {uuid} cannot be removed: {error.strerror or error}"
            ) from error
        return there

    def uuids(self) -> list[str]:
        """Return the uuids of all archives, sorted."""
        try:
            with self._opened() as folder:
                names = os.listdir(folder)
        except FileNotFoundError:
            return []
        found = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return sorted(uuid for uuid in found if _UUID.fullmatch(uuid))

    def leftovers(self) -> list[str]:
        """Return the uuids of archives that a writer began and did not finish, sorted."""
        try:
            with self._opened() as folder:
                names = os.listdir(folder)
        except FileNotFoundError:
            return []
        end = _SUFFIX + _NEW
        found = (name.removesuffix(end) for name in names if name.endswith(end))
        return sorted(uuid for uuid in found if _UUID.fullmatch(uuid))

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        if make:
            Path(self._path).mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        folder = os.open(self._path, flags)
        try:
            yield folder
        finally:
            os.close(folder)


def _name(uuid: str) -> str:
    """Return the name of an archive; a uuid that is not written canonically names no file."""
    if not _UUID.fullmatch(uuid):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uuid)
    return uuid + _SUFFIX
