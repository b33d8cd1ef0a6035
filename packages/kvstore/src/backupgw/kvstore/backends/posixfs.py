"""A folder of a local (or locally mounted) file system as a place.

Items are files under their own names, so what other programs wrote there can be read, and the
other way round. Promises beyond `base`: nothing outside the root is ever opened (see `beneath`);
with `durability="full"` a write is acknowledged after the file was synced, linked to its name and
the folder synced, each new folder in its parent too. A value on its way in has no name at all
where the file system has O_TMPFILE; elsewhere, and for checkpoints, its name is one that nothing
lists and that `reap` clears away.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from queue import Empty
from urllib.parse import unquote, urlsplit

from ..names import check_folder, check_path
from . import posixfs_cached, posixfs_copying
from . import posixfs_moving as moving
from . import posixfs_naming as naming
from . import posixfs_reader as reading
from . import posixfs_writer as writing
from .base import Backend, Capabilities, ItemInfo, Loaded, Quota, Reader, Writer
from .beneath import FOLDER, Beneath
from .checkpoint_tokens import read_token
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    ObjectNotFound,
)
from .plan import Plan
from .posixfs_at_once import AtOnce
from .posixfs_errors import translate
from .posixfs_folders import Folders
from .posixfs_kept import KeptFiles
from .posixfs_kind import is_local
from .posixfs_leftovers import reap_below
from .posixfs_listing import entries, sizes
from .posixfs_look import file_number
from .posixfs_options import Durability, known_durability, mode, targets
from .posixfs_reader import PosixReader, item_info
from .posixfs_root import ignores_case, is_empty, make_root, remove_root

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a planted FIFO or device must not stop us


def from_url(
    url: str,
    *,
    durability: Durability = "full",
    follow: Iterable[str] = (),
    file_mode: int = 0o600,
    folder_mode: int = 0o700,
) -> PosixFS:
    """Make the backend of a `file:///absolute/path` URL; the path is percent-decoded.

    Raises:
        BackendURLInvalid: it names a host or a relative path, or an option has no possible value.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise BackendURLInvalid("a file URL is file:///absolute/path, without a host")
    if parts.query or parts.fragment:
        raise BackendURLInvalid("a file URL has no query: write ? and # in a path as %3F and %23")
    return PosixFS(
        path,
        durability=known_durability(durability),
        follow=targets(follow),
        file_mode=mode("file_mode", file_mode, 0o600),
        folder_mode=mode("folder_mode", folder_mode, 0o700),
    )


def get_file_backend(
    url: str, permissions: Mapping[str, str] | None = None, quota: int | None = None
) -> Backend | None:
    """Return the backend of a `file:` URL as borgstore's function of that name does, with what it
    limits (`store_places.get_backend`); None for other URLs."""
    # Here, because what limits a folder are layers, and stands on this module.
    from ..store_places import get_backend

    return get_backend(url, permissions, quota) if url.startswith("file:") else None


class PosixFS(Backend):
    """Items as files beneath a folder.

    Args:
        path: the folder, absolute.
        durability: "full" syncs files and folders before anything is acknowledged, "fast" leaves
            that to the operating system: a power loss can then take acknowledged items.
        follow: absolute paths of folders elsewhere to which symbolic links in the root may lead.
        file_mode, folder_mode: permission bits of what is made. They are exact when they open
            anything to the group; otherwise the umask may narrow them further.
    """

    def __init__(
        self,
        path: str,
        *,
        durability: Durability = "full",
        follow: Iterable[str] = (),
        file_mode: int = 0o600,
        folder_mode: int = 0o700,
    ) -> None:
        if not os.path.isabs(path):
            raise BackendURLInvalid(f"{path!r} is not an absolute path")
        if durability not in ("full", "fast"):
            raise ValueError(f"durability is 'full' or 'fast', not {durability!r}")
        self.path = path
        self._follow = [follow] if isinstance(follow, str) else list(follow)
        self._modes = naming.Modes(file_mode, folder_mode)
        self._sync = durability == "full"
        self._opened: Folders | None = None
        self._kept: KeptFiles | None = None
        self._ignores_case = False
        self._shares = False
        self._local = False
        self._at_once: AtOnce | None = None
        self.capabilities = self._capabilities()

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=True,
            ranges=True,
            resumable_write=True,
            move=True,
            # Where it is more than reading and writing; elsewhere whoever copies can tell how far.
            copy=self._shares,
            mtime=True,
            local_path=True,
            case_sensitive=not self._ignores_case,
        )

    def __repr__(self) -> str:
        return f"PosixFS({self.path!r})"

    # -- the place itself

    def create(self) -> None:
        if self._opened is not None:
            raise BackendMustNotBeOpen(self.path)
        try:
            make_root(self.path, self._modes, sync=self._sync)
            if not is_empty(self.path):
                raise BackendAlreadyExists(f"{self.path} is not empty")
        except (FileExistsError, NotADirectoryError) as error:
            raise BackendAlreadyExists(f"{self.path} is not a folder") from error
        except OSError as error:
            raise translate(error, self.path) from error

    def destroy(self) -> None:
        """See `Backend.destroy`. A folder that cannot be removed itself stays, empty: a mount
        point, or one that somebody else made for this user."""
        if self._opened is not None:
            raise BackendMustNotBeOpen(self.path)
        try:
            remove_root(self.path)
        except FileNotFoundError as error:
            raise BackendDoesNotExist(self.path) from error
        except OSError as error:
            raise translate(error, self.path) from error

    def open(self) -> None:
        if self._opened is not None:
            raise BackendMustNotBeOpen(self.path)
        try:
            beneath = Beneath(self.path, self._follow)
        except FileNotFoundError as error:
            raise BackendDoesNotExist(f"{self.path} does not exist") from error
        except NotADirectoryError as error:
            raise BackendDoesNotExist(f"{self.path} is not a folder") from error
        except OSError as error:
            raise translate(error, self.path) from error
        self._opened = Folders(beneath, self._modes, sync=self._sync)
        self._kept = KeptFiles(beneath)
        self._ignores_case = ignores_case(self.path)
        self._shares = posixfs_copying.shares(beneath.fd)
        # What the operator listed may lie anywhere.
        self._local = not self._follow and is_local(beneath.fd)
        quick = self._local and not self._sync and not self._ignores_case
        self._at_once = AtOnce(self._modes.file) if quick else None
        self.capabilities = self._capabilities()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._root.close()
        self._opened = self._kept = None

    @property
    def _folders(self) -> Folders:
        if self._opened is None:
            raise BackendMustBeOpen(self.path)
        return self._opened

    @property
    def _root(self) -> Beneath:
        if self._opened is None:
            raise BackendMustBeOpen(self.path)
        return self._opened.root

    def unlisted_links(self) -> Iterator[tuple[str, str]]:
        """Yield (name, target) of symbolic links that clients cannot get through."""
        return self._root.unlisted_links()

    # -- folders

    def mkdir(self, name: str) -> None:
        check_path(name)
        try:
            os.close(self._folders.make(name))
        except OSError as error:
            raise translate(error, name) from error

    def mkdirs(self, names: Iterable[str]) -> None:
        try:
            self._folders.make_all(map(check_path, names))
        except OSError as error:
            raise translate(error, self.path) from error

    def rmdir(self, name: str) -> None:
        check_path(name)
        with self._folders.parent(name) as (folder, segment):
            try:
                os.rmdir(segment, dir_fd=folder)
                self._folders.sync(folder)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise BackendError(f"{name}: the folder is not empty") from error
                raise translate(error, name) from error

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        return entries(self._root, name)

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        check_folder(name)
        return sizes(self._root, name)

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        try:
            fd = self._root.open(name, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return ItemInfo(name, exists=False, size=0, directory=False)
        except OSError as error:
            raise translate(error, name) from error
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        found = item_info(name, status) if status.st_nlink else None  # a root removed while open
        return found or ItemInfo(name, exists=False, size=0, directory=False)

    def surely_missing(self, name: str) -> bool:
        return self._root.surely_missing(name)

    def file_number(self, name: str) -> int:
        check_folder(name)
        if not self._local:
            return 0
        try:
            fd = self._root.open(name, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise translate(error, name) from error
        try:
            return file_number(fd)
        finally:
            os.close(fd)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        try:
            return PosixReader(self._root.open(name, _READ), name, offset, size)
        except OSError as error:
            raise translate(error, name) from error

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        check_path(name)
        try:
            fd = self._root.open_nowait(name, _READ)
            return None if fd is None else PosixReader(fd, name, offset, size)
        except OSError as error:
            raise translate(error, name) from error

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        check_path(name)
        if self._kept is None:
            raise BackendMustBeOpen(self.path)
        return self._kept.load(name, offset, size)

    def load(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        check_path(name)
        try:
            try:
                posixfs_cached.take_turn(True, posixfs_cached.PATIENCE)
                fd = self._root.open_nowait(name, _READ)
                if fd is not None:
                    value = posixfs_cached.load(fd, offset, size)
                    if value is not None:
                        return value
            except Empty:
                fd = None
            finally:
                posixfs_cached.end_turn(None)
            if fd is None:
                fd = self._root.open(name, _READ)
        except OSError as error:
            raise translate(error, name) from error
        return reading.load(fd, name, offset, size)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        parent, _, segment = name.rpartition("/")
        plan = Plan(name, size, if_absent, expected_hash)
        folder = -1
        try:
            folder, missing = self._folders.nearest(parent)
            if self._ignores_case and not missing:
                naming.refuse_case_collision(folder, segment)
            return writing.PosixWriter.start(
                folder,
                plan,
                missing=missing,
                modes=self._modes,
                sync=self._sync,
                open_kept=self._folders.make,
                local=self._local,
            )
        except OSError as error:
            _close(folder)
            raise translate(error, name) from error
        except BackendError:
            _close(folder)
            raise

    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,  # noqa: ARG002 - what exists is never replaced here
        expected_hash: str | None = None,
    ) -> bool:
        """See `Backend.store_nowait`, and `posixfs_at_once` for when it does."""
        if self._at_once is None or not self._at_once.may(len(value)):
            return False
        parent, _, segment = check_path(name).rpartition("/")
        try:
            folder = self._root.open_nowait(parent, FOLDER)
        except OSError:
            return False  # it is missing, or the ordinary way finds words for it
        if folder is None:
            return False
        try:
            return self._at_once.write(folder, segment, value, expected_hash)
        finally:
            os.close(folder)

    def resume_writer(self, token: str) -> Writer:
        plan, part = read_token(token)
        folder = -1
        try:
            folder = self._root.open_folder(plan.name.rpartition("/")[0])
            return writing.PosixWriter.resume(
                folder,
                part,
                plan,
                modes=self._modes,
                sync=self._sync,
                open_kept=self._folders.make,
            )
        except OSError as error:
            _close(folder)
            raise translate(error, f"checkpoint of {plan.name}") from error
        except BackendError:
            _close(folder)
            raise

    def abort_writer(self, token: str) -> None:
        plan, part = read_token(token)
        try:
            folder = self._root.open_folder(plan.name.rpartition("/")[0])
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise translate(error, plan.name) from error
        try:
            os.unlink(part, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate(error, plan.name) from error
        finally:
            os.close(folder)

    def delete(self, name: str) -> None:
        check_path(name)
        with self._folders.parent(name) as (folder, segment):
            try:
                os.unlink(segment, dir_fd=folder)
                self._folders.sync(folder)
            except (IsADirectoryError, PermissionError) as error:
                if self.info(name).directory:
                    raise ObjectNotFound(f"{name} is a folder, not an item") from error
                raise translate(error, name) from error
            except OSError as error:
                raise translate(error, name) from error

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, os.rename)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, naming.rename_or_link)

    def _move(self, name: str, new_name: str, rename: naming.Rename) -> None:
        check_path(name)
        check_path(new_name)
        if not _is_item(self.info(name)):
            raise ObjectNotFound(name)
        moving.move(self._folders, name, new_name, rename, ignores_case=self._ignores_case)

    def quarantine(self, name: str) -> str:
        check_path(name)
        return moving.quarantine(self._folders, name)

    # -- optional operations

    def copy(self, name: str, new_name: str) -> None:
        with self.open_reader(name) as reader, self.open_writer(new_name) as writer:
            assert isinstance(reader, PosixReader)
            assert isinstance(writer, writing.PosixWriter)
            writer.write_file(reader.file_span().fd)

    def sync(self, name: str) -> None:
        check_path(name)
        if not self._sync:
            return
        with self._folders.parent(name) as (folder, _):
            try:
                fd = self._root.open(name, _READ)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.fsync(folder)
            except OSError as error:
                raise translate(error, name) from error

    def quota(self) -> Quota:
        try:
            usage = os.statvfs(self._root.fd)
        except OSError as error:
            raise translate(error, self.path) from error
        total = usage.f_blocks * usage.f_frsize
        free = usage.f_bavail * usage.f_frsize
        return Quota(limit=total, usage=total - free)

    def reap(self, older_than: float) -> int:
        try:
            return reap_below(self._root, older_than)
        except OSError as error:
            raise translate(error, self.path) from error


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _is_item(info: ItemInfo) -> bool:
    return info.exists and not info.directory
