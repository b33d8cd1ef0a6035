"""Any of rclone's remotes as a place: `rclone:remote:path`.

rclone itself moves the bytes (`rclone_process`). What a remote can do is asked of it
(`operations/fsinfo`) when the place is opened, and told in `capabilities`. An item is visible whole
or not at all; create-if-absent looks first and is not atomic on any remote. How a renaming that
replaces an item goes is the remote's: where rclone removes the old item first, a crash between
leaves none.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import Schedule, read_schedule
from ..names import RESERVED_PREFIX, InvalidName, KernelPath, check_folder, check_path, is_reserved
from . import rclone_process, rclone_remote
from .base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer, require_found
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    NameCollision,
    ObjectExists,
    ObjectNotFound,
)
from .marked_folders import Folders, MarkedFolders
from .plan import Plan
from .rclone_calls import AS_SENT, AS_TOLD, LONG, Calls, Features, Repeated, seconds
from .rclone_folders import folders_of, make_root
from .rclone_names import decoded
from .rclone_presence import is_there
from .rclone_reader import open_item
from .rclone_remote import Remote
from .rclone_writer import TEMPORARY, RcloneWriter, temporary

SPOOL = 32 << 20
"""Bytes up to which a value is kept in a file of this machine until it is committed."""

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"


def from_url(
    url: str,
    *,
    binary: str | None = None,
    config: str | None = None,
    spool: object = SPOOL,
    attempts: object = 5,
    deadline: object = "2 min",
    first_pause: object = "100 ms",
    **parameters: object,
) -> Rclone:
    """Make the backend of `rclone:remote:path`.

    Args:
        binary: the program, default $RCLONE_BINARY or `rclone` in PATH.
        config: rclone's settings file, default rclone's own.
        spool: bytes up to which a value is kept in a file of this machine until it is committed.
        attempts, deadline: how often, and for how many seconds, a kept value is handed over.
        first_pause: seconds that the pause after the first attempt takes at most.
        parameters: of the remote, as rclone's settings have them; passwords obscured, as there.

    Raises:
        BackendURLInvalid: the URL is none.
    """
    if config is not None and not os.path.isabs(config):
        raise BackendURLInvalid(f"config {config!r}: name the file with its absolute path")
    try:
        kept = options.size("spool", spool)
        schedule = read_schedule(attempts, deadline, first_pause)
    except OptionInvalid as error:
        raise BackendURLInvalid(f"rclone: {error}") from error
    return Rclone(
        rclone_remote.parse(url, parameters),
        binary=binary or os.environ.get("RCLONE_BINARY") or "rclone",
        config=config,
        spool=kept,
        schedule=schedule,
    )


def get_rclone_backend(url: str) -> Backend | None:
    """Return the backend of a URL as borgstore's function of that name does; None for others."""
    return from_url(url) if url.startswith("rclone:") else None


class Rclone(Backend):
    """A folder of a remote; see `from_url`.

    Args:
        remote: and the folder.
        binary: the program, a path or a name in PATH.
        config: rclone's settings file.
        spool: bytes.
        schedule: how often and how long a value is handed over.
    """

    def __init__(
        self,
        remote: Remote,
        *,
        binary: str,
        config: str | None = None,
        spool: int = SPOOL,
        schedule: Schedule | None = None,
    ) -> None:
        self._schedule = schedule
        self._remote = remote
        self._binary = binary
        self._config = config
        self._spool = spool
        self._calls: Calls | None = None
        self._features: Features | None = None
        self._folders: Folders | None = None
        self.capabilities = Capabilities(ranges=True, shared=not remote.name.startswith(":memory"))

    def __repr__(self) -> str:
        return f"Rclone({self._remote.shown!r})"

    # -- the place itself

    def create(self) -> None:
        calls, features, folders = self._while_closed()
        try:
            if calls.any_entry("") is not None:
                raise BackendAlreadyExists(f"{self._remote.shown} is not empty")
        except ObjectNotFound:
            pass
        make_root(calls)
        if not features.real_folders:
            assert isinstance(folders, MarkedFolders)
            folders.mark_root()

    def destroy(self) -> None:
        calls, features, folders = self._while_closed()
        if not _exists(calls, features, folders):
            raise BackendDoesNotExist(f"{self._remote.shown} does not exist")
        calls.ask("operations/purge", "", calls.at(""), timeout=LONG)

    def _while_closed(self) -> tuple[Calls, Features, Folders]:
        if self._calls is not None:
            raise BackendMustNotBeOpen(self._remote.shown)
        calls = Calls(rclone_process.shared(self._binary, self._config), self._remote)
        try:
            features = calls.features()
        except ObjectNotFound as error:
            raise BackendDoesNotExist(f"{self._remote.shown} does not exist") from error
        return calls, features, folders_of(calls, features, partial(_put_nothing, calls))

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: the program, the remote or the folder does not exist.
            PermissionDenied: the remote's credentials are refused.
        """
        calls, features, folders = self._while_closed()
        if not _exists(calls, features, folders):
            raise BackendDoesNotExist(f"{self._remote.shown} does not exist")
        self.capabilities = Capabilities(
            ranges=True,
            move=features.move,
            copy=features.copy,
            hash="sha256" in features.hashes,
            mtime=True,
            parallel_lists=not features.local and not features.in_memory,
            quota=features.about,
            case_sensitive=features.case_sensitive,
            shared=not features.in_memory,
        )
        calls.confirming = not features.local
        self._features, self._folders, self._calls = features, folders, calls

    def close(self) -> None:
        self._open()
        self._calls = None

    def _open(self) -> Calls:
        if self._calls is None:
            raise BackendMustBeOpen(self._remote.shown)
        return self._calls

    @property
    def _of_folders(self) -> Folders:
        self._open()
        assert self._folders is not None
        return self._folders

    @property
    def _able(self) -> Features:
        self._open()
        assert self._features is not None
        return self._features

    def quota(self) -> Quota:
        calls = self._open()
        if not self._able.about:
            return Quota()
        told = calls.ask("operations/about", "", {"fs": self._remote.fs})
        limit, usage = told.get("total"), told.get("used")
        return Quota(
            limit if isinstance(limit, int) else -1, usage if isinstance(usage, int) else -1
        )

    def reap(self, older_than: float) -> int:
        calls = self._open()
        if not self._able.partial_uploads:
            return 0
        found = calls.entries(
            "", opt={"recurse": True, "filesOnly": True}, _filter={"IncludeRule": [f"{TEMPORARY}*"]}
        )
        count = 0
        for entry in found:
            path = self._remote.relative(str(entry.get("Path", "")))
            last = path.rpartition("/")[2]
            if last.startswith(TEMPORARY) and time.time() - seconds(entry) >= older_than:
                try:
                    calls.ask("operations/deletefile", path, calls.at(path))
                except ObjectNotFound:
                    continue
                count += 1
        return count

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([name])

    def mkdirs(self, names: Iterable[str]) -> None:
        wanted = [check_folder(name) for name in names]
        self._of_folders.make(wanted)

    def rmdir(self, name: str) -> None:
        check_path(name)
        try:
            self._of_folders.remove(name)
        except Repeated:
            return

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        return self._entries(self._open(), name)

    def _entries(self, calls: Calls, name: str) -> Iterator[ItemInfo]:
        found = False
        for entry in calls.entries(name):
            found = True
            info = _info(decoded(entry["Name"]), entry)
            if info is not None:
                yield info
        if not found and name and not self._able.real_folders and not self._of_folders.exists(name):
            raise ObjectNotFound(name)

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        calls = self._open()
        item = calls.item(name) if name else None
        if item is not None:
            return _told(name, item)
        exists = not name or self._of_folders.exists(name)
        return ItemInfo(name, exists=exists, size=0, directory=exists)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        calls = self._open()
        return open_item(calls, name, offset, size)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        calls = self._open()
        direct = not self._able.partial_uploads
        target = name if direct else temporary(name)
        return RcloneWriter(
            calls,
            Plan(name, size, if_absent, expected_hash),
            target,
            None if direct else partial(self._rename, target, name),
            partial(self._clear, name),
            spool=self._spool,
            schedule=self._schedule,
        )

    def _clear(self, name: str) -> None:
        """Raise what stands against an item of that name."""
        if not is_reserved(name.rpartition("/")[2]):
            self._of_folders.before_writing(name)
        if self._able.case_sensitive:
            return
        folder, _, last = name.rpartition("/")
        if self._open().item(name) is None:
            return
        for entry in self._open().entries(folder):
            other = decoded(entry["Name"])
            if other != last and other.casefold() == last.casefold():
                raise NameCollision(f"{name}: {other!r} differs from it only in case")

    def delete(self, name: str) -> None:
        check_path(name)
        calls = self._open()
        self._of_folders.before_removing(name)
        try:
            calls.ask("operations/deletefile", name, calls.at(name))
        except Repeated:
            return

    def move(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        if name == new_name:
            require_found(self.info(name))
            return
        self._of_folders.before_removing(name)
        self._clear(new_name)
        try:
            self._rename(name, new_name)
        except Repeated:
            require_found(self.info(new_name))

    def move_if_absent(self, name: str, new_name: str) -> None:
        check_path(new_name)
        require_found(self.info(check_path(name)))
        if self.info(new_name).exists:
            raise ObjectExists(f"{new_name} exists")
        self.move(name, new_name)

    def _rename(self, name: str, new_name: str) -> None:
        """Rename within the remote, replacing what is there; in one step where the remote can.

        Told not to look at the target, rclone leaves replacing to the remote. That is right where
        a name has one item; others might keep both.
        """
        calls = self._open()
        between = calls.between(name, new_name)
        if not self._able.move:  # rclone copies and removes
            config = {**between, "_config": AS_SENT}
            calls.ask("operations/movefile", name, config, timeout=LONG)
            return
        if self._able.partial_uploads:
            try:
                config = {**between, "_config": AS_TOLD}
                calls.ask("operations/movefile", name, config, timeout=LONG)
                return
            except ObjectNotFound:
                raise
            except BackendError as error:
                if error.retryable or calls.item(new_name) is None:
                    raise
        config = {**between, "_config": {"Inplace": True, "IgnoreTimes": True}}
        calls.ask("operations/movefile", name, config, timeout=LONG)

    # -- what the remote does by itself

    def copy(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        calls = self._open()
        if name == new_name:
            require_found(self.info(name))
            return
        if calls.item(name) is None:
            raise ObjectNotFound(name)
        self._clear(new_name)
        direct = not self._able.partial_uploads
        target = new_name if direct else temporary(new_name)
        try:
            between = calls.between(name, target)
            config = AS_SENT if direct else AS_TOLD
            calls.ask("operations/copyfile", name, {**between, "_config": config}, timeout=LONG)
            if not direct:
                self._rename(target, new_name)
        except BaseException:
            if not direct:
                self._remove_quietly(calls, target)
            raise

    @staticmethod
    def _remove_quietly(calls: Calls, name: str) -> None:
        try:
            calls.ask("operations/deletefile", name, calls.at(name))
        except BackendError:
            return  # `reap` will find it

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        check_path(name)
        hashlib.new(algorithm)
        if algorithm in self._able.hashes:
            item = self._open().item(name, algorithm)
            if item is None:
                raise ObjectNotFound(name)
            told = (item.get("Hashes") or {}).get(algorithm)
            if isinstance(told, str) and told:
                return told
        return super().hash(name, algorithm)

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


def _put_nothing(calls: Calls, name: str) -> None:
    """Store an empty item under a name of the kernel's."""
    plan = Plan(name, 0, if_absent=False, expected_hash=None)
    with RcloneWriter(calls, plan, name, None, lambda: None, spool=0):
        pass


def _exists(calls: Calls, features: Features, folders: Folders) -> bool:
    """Whether the place does, be it an empty bucket that nobody has marked."""
    return folders.exists("") or (not features.real_folders and is_there(calls))


def _info(name: str, entry: dict[str, Any]) -> ItemInfo | None:
    """Return an entry of a list, None for what is not to be shown."""
    if is_reserved(name) or "/" in name:
        return None
    try:
        check_path(name)
    except InvalidName:
        return None
    return _told(name, entry)


def _told(name: str, entry: dict[str, Any]) -> ItemInfo:
    directory = bool(entry.get("IsDir"))
    size = entry.get("Size")
    return ItemInfo(
        name,
        exists=True,
        size=max(size, 0) if isinstance(size, int) and not directory else 0,
        directory=directory,
        mtime=seconds(entry),
    )
