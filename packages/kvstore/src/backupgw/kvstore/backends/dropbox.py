"""Dropbox as a place: `dropbox:FOLDER`, by Dropbox's own library.

What Dropbox gives: `add` with strict conflicts makes create-if-absent atomic, a file appears whole
when its upload is finished, sessions may be carried on for seven days, a revision that is being
read stays readable. What it does not: names that differ only in case are one to it, so the second
is refused (`NameCollision`); removing a folder removes what is in it, so an item is removed by its
revision and a folder is moved aside and looked into first; moving never replaces, so what is
replaced is moved aside before, and a reader may find nothing for a moment.

Requests are repeated after 429, 5xx and broken connections; a removal or a renaming that then finds
nothing to do had been done before.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Iterator

from dropbox import files

from ..layers.retry_schedule import Schedule
from ..names import RESERVED_PREFIX, KernelPath, check_folder, check_path, is_reserved, joined
from . import dropbox_client
from .base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from .body_reader import NoBytes, open_steadily
from .dropbox_calls import Calls, Found
from .dropbox_names import decode, encode_path
from .dropbox_namesakes import Namesakes
from .dropbox_reader import NothingThere, begin
from .dropbox_target import DropboxTarget
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    ObjectExists,
    ObjectNotFound,
)
from .part_checkpoints import abandon, read_token
from .part_transfers import PartPool
from .part_writer import PartWriter
from .plan import Plan

PART_SIZE = 16 << 20
SCHEDULE = Schedule(attempts=6, deadline=90.0, first=0.5)

_PIECES = f"{RESERVED_PREFIX}-pieces"
_ASIDE = f"{RESERVED_PREFIX}-aside"
_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"
_TIMES_IN_THE_WAY = 20
"""How often somebody else may write an item that a renaming replaces, before it is given up."""


class Dropbox(Backend):
    """A folder of a Dropbox account.

    Args:
        root: the folder, as `/Backups/gateway`, or "" for all that the app may see.
        login: how it signs in.
        part_size: bytes of one request of an upload, a multiple of 4 MiB up to 148 MiB.
        schedule: how often and how long a request is repeated.
    """

    capabilities = Capabilities(
        atomic_create=True,
        ranges=True,
        resumable_write=True,
        move=True,
        copy=True,
        mtime=True,
        parallel_lists=True,
        quota=True,
        case_sensitive=False,
    )

    def __init__(
        self,
        root: str,
        login: dropbox_client.Login,
        *,
        part_size: int = PART_SIZE,
        schedule: Schedule = SCHEDULE,
    ) -> None:
        self.part_size = part_size
        self._root = root
        self._schedule = schedule
        self.calls = Calls(login, schedule, f"dropbox:{root}")
        self._pool: PartPool | None = None
        self.namesakes = Namesakes(self.calls, self.path)

    # -- the place

    def create(self) -> None:
        with self._signed_in():
            if self._root and not self._missing_root():
                raise BackendAlreadyExists(f"dropbox:{self._root} exists already")
            if not self._root:
                if next(self.calls.entries(""), None) is not None:
                    raise BackendAlreadyExists("the app's folder in Dropbox is not empty")
                return
            self.calls.do("", lambda: self.calls.client().files_create_folder_v2(self._root))

    def destroy(self) -> None:
        with self._signed_in():
            if self._missing_root():
                raise BackendDoesNotExist(f"there is no folder {self._root} in Dropbox")
            if self._root:
                self.calls.remove("", self._root)
                return
            for entry in self.calls.entries(""):
                self.calls.remove(entry.name, entry.path_lower)

    def open(self) -> None:
        if self._pool is not None:
            raise BackendMustNotBeOpen(f"dropbox:{self._root} is open")
        self.calls.connect()
        try:
            if self._missing_root():
                raise BackendDoesNotExist(f"there is no folder {self._root} in Dropbox")
        except BaseException:
            self.calls.close()
            raise
        self._pool = PartPool(schedule=self._schedule)

    def close(self) -> None:
        pool, self._pool = self._opened(), None
        pool.close()
        self.calls.close()

    # -- looking

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        self._opened()
        if not name:
            return ItemInfo("", exists=True, size=0, directory=True)
        found = self.metadata(name)
        if found is None:
            return ItemInfo(name, exists=False, size=0, directory=False)
        return _info(name, found)

    def metadata(self, name: str) -> Found | None:
        """Return what Dropbox tells of an item or folder; None where there is none of that very
        name."""
        path = self.path(name)
        try:
            found = self.calls.look(name, path)
        except ObjectNotFound:
            return None
        if decode(found.name) != name.rpartition("/")[2]:
            return None  # one that differs in case
        return found

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        self._opened()
        for entry in self.calls.entries(self.path(name)):
            last = decode(entry.name)
            if not is_reserved(last):
                yield _info(last, entry)

    def quota(self) -> Quota:
        self._opened()
        usage = self.calls.do("the account", lambda: self.calls.client().users_get_space_usage())
        allocation = usage.allocation
        if allocation.is_individual():
            return Quota(allocation.get_individual().allocated, usage.used)
        if allocation.is_team():
            team = allocation.get_team()
            return Quota(team.allocated, team.used)
        return Quota(-1, usage.used)

    # -- reading

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        self._opened()
        return open_steadily(
            name,
            lambda at, much, version: self._open_range(name, at, much, version),
            offset=offset,
            size=size,
            schedule=self._schedule,
        )

    def _open_range(self, name: str, offset: int, size: int | None, version: str | None) -> Reader:
        path = self.path(name) if version is None else f"rev:{version}"
        if size == 0 or (offset < 0 and size is not None):
            # The range has to be known from the start of the item.
            there = self._file(name)
            path = path if version is not None else f"rev:{there.rev}"
            offset = max(0, there.size + offset) if offset < 0 else offset
            if size == 0 or offset >= there.size:
                return NoBytes(there.size, there.rev)
        try:
            download = begin(self.calls, name, path, offset, size)
        except NothingThere:
            there = self._file(name)
            return NoBytes(there.size, there.rev)
        if version is None and decode(download.found.name) != name.rpartition("/")[2]:
            download.close()
            raise ObjectNotFound(name)
        return download.reader(name, offset, size)

    def _file(self, name: str) -> files.FileMetadata:
        found = self.metadata(name)
        if not isinstance(found, files.FileMetadata):
            raise ObjectNotFound(name)
        return found

    # -- writing

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        plan = Plan(name, size, if_absent, expected_hash)
        return PartWriter(self._opened(), DropboxTarget(self, plan, self.path(name)), plan)

    def resume_writer(self, token: str) -> Writer:
        pool = self._opened()
        checkpoint = read_token(token)
        plan = checkpoint.plan
        target = DropboxTarget(self, plan, self.path(plan.name))
        return PartWriter.resume(pool, target, checkpoint)

    def abort_writer(self, token: str) -> None:
        pool = self._opened()
        checkpoint = read_token(token)
        plan = checkpoint.plan
        abandon(pool, DropboxTarget(self, plan, self.path(plan.name)), checkpoint)

    def keep_piece(self, data: bytes) -> str:
        """Store what a checkpoint needs, out of every protocol's reach; return its reference."""
        reference = secrets.token_hex(16)
        self.store(self.piece(reference), data)
        return reference

    def piece(self, reference: str) -> str:
        """Return the name of what `keep_piece` stored. Raises ValueError for other references."""
        bytes.fromhex(reference)
        return KernelPath(f"{_PIECES}/{reference}")

    # -- changing

    def mkdir(self, name: str) -> None:
        check_folder(name)
        self._opened()
        if not name or self.namesakes.knows(name):
            return
        self.namesakes.check_place(name)
        path = self.path(name)
        try:
            self.calls.do(name, lambda: self.calls.client().files_create_folder_v2(path))
        except ObjectExists:
            found = self.calls.look(name, path)
            self.namesakes.require_same(name, found)
            if not isinstance(found, files.FolderMetadata):
                raise BackendError(f"{name}: is an item, not a folder") from None

    def rmdir(self, name: str) -> None:
        check_path(name)
        self._opened()
        found = self.metadata(name)
        if found is None:
            raise ObjectNotFound(name)
        if not isinstance(found, files.FolderMetadata):
            raise BackendError(f"{name}: is an item, not a folder")
        self.namesakes.forget(name)
        self._require_empty(name, self.path(name))
        # What comes into it from here on must not go with it: it is looked into out of the way.
        aside = self.path(KernelPath(f"{_ASIDE}/{secrets.token_hex(16)}"))
        self.calls.rename(name, self.path(name), aside)
        try:
            self._require_empty(name, aside)
        except BackendError:
            self._bring_back(name, aside)
            raise
        self.calls.remove(name, aside)

    def _require_empty(self, name: str, path: str) -> None:
        if next(self.calls.entries(path), None) is not None:
            raise BackendError(f"{name}: is not empty")

    def _bring_back(self, name: str, aside: str) -> None:
        """Put a folder back where it was, or what is in it where it was made anew meanwhile."""
        path = self.path(name)
        try:
            self.calls.rename(name, aside, path)
        except ObjectExists:
            for entry in [*self.calls.entries(aside)]:
                ends = f"{aside}/{entry.name}", f"{path}/{entry.name}"
                with contextlib.suppress(ObjectExists):  # newer; the older stays aside
                    self.calls.rename(name, *ends)

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        check_path(name)
        self._opened()
        for _ in range(_TIMES_IN_THE_WAY):
            # By its revision: without one, Dropbox would remove a folder with all that is in it.
            found = self._file(name)
            try:
                self._delete(name, found.rev)
            except ObjectExists:
                continue  # it was replaced meanwhile
            return int(found.size)
        raise BackendError(f"{name}: others write it all the time", retryable=True)

    def _delete(self, name: str, rev: str) -> None:
        path = self.path(name)

        def work() -> None:
            self.calls.client().files_delete_v2(path, parent_rev=rev)

        self.calls.once(name, work, done=lambda: self.metadata(name) is None)

    def move(self, name: str, new_name: str) -> None:
        self._require_movable(name, new_name)
        source = self._file(name)
        if name == new_name:
            return
        replaced: list[KernelPath] = []
        for _ in range(_TIMES_IN_THE_WAY):
            try:
                self._move(source, name, new_name)
            except ObjectExists:
                self.namesakes.check_replaced(new_name)
                aside = KernelPath(f"{_ASIDE}/{secrets.token_hex(16)}")
                with contextlib.suppress(ObjectNotFound):  # gone by itself
                    self._move(self._file(new_name), new_name, aside)
                    replaced.append(aside)
            else:
                break
        else:
            raise BackendError(f"{new_name}: others write it all the time", retryable=True)
        for old in replaced:
            with contextlib.suppress(ObjectNotFound):
                self.delete(old)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._require_movable(name, new_name)
        source = self._file(name)
        if name == new_name:
            raise ObjectExists(new_name)
        try:
            self._move(source, name, new_name)
        except ObjectExists:
            self.namesakes.check_replaced(new_name)
            raise

    def _require_movable(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        self._opened()
        self.namesakes.check_place(new_name)

    def _move(self, source: files.FileMetadata, name: str, new_name: str) -> None:
        ends = self.path(name), self.path(new_name)

        def done() -> bool:
            there = self.metadata(new_name)
            return isinstance(there, files.FileMetadata) and there.id == source.id

        self.calls.once(name, lambda: self.calls.client().files_move_v2(*ends), done=done)

    def copy(self, name: str, new_name: str) -> None:
        self._require_movable(name, new_name)
        if name == new_name:
            self._file(name)
            return
        ends = self.path(name), self.path(new_name)
        self._file(name)
        try:
            self.calls.do(name, lambda: self.calls.client().files_copy_v2(*ends))
        except ObjectExists:
            aside = KernelPath(f"{_ASIDE}/{secrets.token_hex(16)}")
            target = self.path(aside)
            self.calls.do(name, lambda: self.calls.client().files_copy_v2(ends[0], target))
            self.move(aside, new_name)

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = joined(KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}"), name)
        self.move_if_absent(name, kept)
        return str(kept)

    def reap(self, older_than: float) -> int:
        self._opened()
        limit = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        limit -= datetime.timedelta(seconds=older_than)
        count = 0
        for folder in (_PIECES, _ASIDE):
            try:
                entries = [*self.calls.entries(self.path(KernelPath(folder)))]
            except ObjectNotFound:
                continue
            for entry in entries:
                if isinstance(entry, files.FileMetadata) and entry.server_modified < limit:
                    with contextlib.suppress(ObjectNotFound):
                        self._delete(KernelPath(f"{folder}/{entry.name}"), entry.rev)
                        count += 1
        return count

    # -- requests

    def path(self, name: str) -> str:
        """Return a name as Dropbox has it. Raises NameTooLong."""
        encoded = encode_path(name)
        return f"{self._root}/{encoded}" if encoded else self._root

    def _opened(self) -> PartPool:
        if self._pool is None:
            raise BackendMustBeOpen(f"dropbox:{self._root} is not open")
        return self._pool

    @contextlib.contextmanager
    def _signed_in(self) -> Iterator[None]:
        if self._pool is not None:
            raise BackendMustNotBeOpen(f"dropbox:{self._root} is open")
        self.calls.connect()
        self.namesakes.forget()
        try:
            yield
        finally:
            self.calls.close()

    def _missing_root(self) -> bool:
        try:
            if self._root:
                self.calls.look("the place", self._root)
            else:
                self.calls.do(
                    "the place", lambda: self.calls.client().files_list_folder("", limit=1)
                )
        except ObjectNotFound:
            return True
        return False


def _info(name: str, found: Found) -> ItemInfo:
    if isinstance(found, files.FileMetadata):
        mtime = found.server_modified.replace(tzinfo=datetime.UTC).timestamp()
        return ItemInfo(name, exists=True, size=found.size, directory=False, mtime=mtime)
    return ItemInfo(name, exists=True, size=0, directory=True)
