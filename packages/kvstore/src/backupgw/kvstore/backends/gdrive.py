"""Google Drive as a place: a folder of an account or of a shared drive, `gdrive:FOLDER`.

Drive keeps no promise about names: of several writers each may make a file of one name. The oldest
counts, for everybody (`gdrive_items`). So create-if-absent is as good as what follows from that,
and the capabilities say that it is not atomic.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..layers.retry_reader import ReplacedMeanwhile
from ..layers.retry_schedule import Schedule
from ..names import RESERVED_PREFIX, KernelPath, check_path
from .base import Capabilities, Quota, Reader, Writer
from .body_reader import BodyReader, NoBytes, open_steadily
from .entry_place import EntryPlace
from .errors import (
    BackendAlreadyExists,
    BackendError,
    ObjectNotFound,
    ReadRangeError,
    UnsupportedOperation,
)
from .gdrive_calls import Calls
from .gdrive_entry import Entry
from .gdrive_folders import OWN, Folders, root_of
from .gdrive_items import Items
from .gdrive_target import GdriveTarget
from .google_errors import ERRORS
from .google_session import Login
from .google_target import PIECES
from .part_checkpoints import Checkpoint, abandon, read_token
from .part_transfers import PartPool
from .part_writer import PartWriter
from .plan import Plan
from .posixfs_leftovers import PART_AGE

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"
_TIMES_IN_THE_WAY = 20
"""How often somebody else may write an item that is being moved, before it is given up."""


@dataclass(frozen=True)
class Settings:
    """Which place, and how it is used; see `gdrive_urls.from_url`.

    Attributes:
        path: of the folder, "" for all of the drive.
        root: id of the folder that `path` begins in.
        drive: id of a shared drive; None for the account's own.
    """

    path: str
    root: str
    drive: str | None
    login: Login
    endpoint: str | None
    trash: bool
    part_size: int
    memory: int
    schedule: Schedule

    @property
    def label(self) -> str:
        """What messages call the place."""
        return f"gdrive:{self.path}" if self.root == OWN else f"gdrive://{self.root}/{self.path}"


class Gdrive(EntryPlace[str, Entry]):
    """A folder in Google Drive.

    Args:
        settings: which, and how it is used.
    """

    capabilities = Capabilities(
        ranges=True, resumable_write=True, copy=True, mtime=True, quota=True
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.label)
        self._settings = settings
        self._pool: PartPool | None = None

    # -- the place itself

    def _connect(self) -> Calls:
        settings = self._settings
        return Calls(settings.login, settings.endpoint, settings.drive, settings.schedule)

    def create(self) -> None:
        self._must_be_closed()
        settings, calls = self._settings, self._connect()
        try:
            top = Folders(calls, root_of(calls, settings.label, settings.root, ""))
            ids = top.find(settings.path)
            if ids is None:
                top.make(settings.path)
            elif next(calls.entries(settings.label, ids), None) is not None:
                raise BackendAlreadyExists(f"{settings.label}: there is something in it already")
        finally:
            calls.close()

    def destroy(self) -> None:
        """Remove the folder with all it holds, to Drive's trash if the place has that.

        Raises:
            UnsupportedOperation: it is a whole drive, with what others keep in it.
        """
        self._must_be_closed()
        settings = self._settings
        if not settings.path:
            raise UnsupportedOperation(
                f"{settings.label} is a whole drive; only a folder of one can be destroyed"
            )
        calls = self._connect()
        try:
            ids = root_of(calls, settings.label, settings.root, settings.path)
            items = Items(calls, Folders(calls, ids), trash=settings.trash)
            for entry in ids:
                items.remove(settings.label, entry)
        finally:
            calls.close()

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no such folder.
            PermissionDenied: the grant was withdrawn, or does not allow it.
            BackendConnectionError: Drive cannot be reached.
        """
        self._must_be_closed()
        settings, calls = self._settings, self._connect()
        try:
            ids = root_of(calls, settings.label, settings.root, settings.path)
        except BaseException:
            calls.close()
            raise
        self._pool = PartPool(memory=settings.memory, schedule=settings.schedule)
        self._items = Items(calls, Folders(calls, ids), trash=settings.trash)

    def close(self) -> None:
        items, self._items = self._open, None
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        items.calls.close()

    @property
    def _open(self) -> Items:
        return cast(Items, self._opened)

    def quota(self) -> Quota:
        """The account's, with whatever else it holds; -1 for shared drives and accounts without."""
        calls = self._open.calls
        if self._settings.drive is not None:
            return Quota()
        return calls.repeated("the account", calls.space)

    # -- folders

    def rmdir(self, name: str) -> None:
        """Remove an empty folder.

        It goes to Drive's trash whatever the place does with items, and comes back from there when
        something was put into it at that moment.
        """
        check_path(name)
        items, ids = self._open, self._empty_folder(name)
        calls = items.calls
        done = [items.remove(name, entry, trash=True) for entry in ids]
        if not any(done):
            raise ObjectNotFound(name)
        if not all(entry.discarded for entry in calls.entries(name, ids, trashed=None)):
            for entry in ids:
                self._bring_back(name, entry)
            raise BackendError(f"{name}: is not empty")

    def _bring_back(self, name: str, entry: str) -> None:
        calls = self._open.calls
        calls.repeated(name, lambda: calls.set_trashed(name, entry, False))

    # -- items

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        items = self._open
        if size == 0 or (offset < 0 and size is not None):
            found = items.find(name)
            offset = max(found.size + offset, 0) if offset < 0 else offset
            if size == 0 or offset >= found.size:
                return NoBytes(found.size)
        opener = _Opener(items, name)
        return open_steadily(
            name, opener.open, offset=offset, size=size, schedule=self._settings.schedule
        )

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
        target = self._target(plan)
        assert self._pool is not None
        return PartWriter(self._pool, target, plan)

    def _target(self, plan: Plan, checkpoint: Checkpoint | None = None) -> GdriveTarget:
        return GdriveTarget(self, self._open, plan, self._settings.part_size, checkpoint)

    def resume_writer(self, token: str) -> Writer:
        _ = self._open
        checkpoint = read_token(token)
        target = self._target(checkpoint.plan, checkpoint)
        assert self._pool is not None
        return PartWriter.resume(self._pool, target, checkpoint)

    def abort_writer(self, token: str) -> None:
        _ = self._open
        checkpoint = read_token(token)
        assert self._pool is not None
        abandon(self._pool, self._target(checkpoint.plan, checkpoint), checkpoint)

    def delete(self, name: str) -> None:
        check_path(name)
        self._open.delete(name)

    def _move_entries(
        self, name: str, found: Sequence[Entry], new_name: str, *, if_absent: bool
    ) -> None:
        items = self._open
        copy = items.copy(found[0], new_name, if_absent=if_absent)
        for _ in range(_TIMES_IN_THE_WAY):
            if items.is_as_it_was(name, found[0]):
                break
            # It was replaced meanwhile, and which of its values was copied is not known.
            found = items.entries(name) or found
            copy = items.copy(found[0], new_name, if_absent=False)
        else:
            raise BackendError(f"{name}: others write it all the time", retryable=True)
        items.note(name, None)
        done = [items.remove(name, each.id, trash=False) for each in found if not each.folder]
        if not any(done):
            # Somebody else has moved or deleted it meanwhile.
            items.note(new_name, None)
            items.remove(new_name, copy.id, trash=False)
            raise ObjectNotFound(name)

    def reap(self, older_than: float) -> int:
        """Remove what checkpoints left that nobody carried on. Uploads that nobody finished are
        forgotten by Drive after a week, and cost nothing."""
        items = self._open
        ids = items.folders.find(PIECES, seen_after=time.monotonic())
        if ids is None:
            return 0
        latest = time.time() - max(older_than, PART_AGE)
        old = [entry for entry in items.calls.entries(PIECES, ids) if entry.changed <= latest]
        return sum(items.remove(PIECES, entry.id, trash=False) for entry in old)

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


class _Opener:
    """Opens ranges of one item.

    Drive calls values by no name of its own: where it sends their hashes, those tell one from
    another; where it does not, a reader that goes on compares what it has read.
    """

    def __init__(self, items: Items, name: str) -> None:
        self._items = items
        self._name = name
        self._entry: str | None = None

    def open(self, offset: int, size: int | None, _version: str | None) -> Reader:
        if self._entry is not None:  # going on
            try:
                return self._open(self._entry, offset, size)
            except ObjectNotFound as error:
                raise ReplacedMeanwhile(
                    f"{self._name}: it was replaced or deleted while it was read"
                ) from error
        items, name = self._items, self._name
        entry = (items.known(name) or items.find(name)).id
        while True:
            try:
                reader = self._open(entry, offset, size)
            except ObjectNotFound:
                items.note(name, None)
            else:
                self._entry = entry
                return reader
            # It was replaced; and where there is nothing else, it was deleted.
            found = items.find(name).id
            if found == entry:
                raise ObjectNotFound(name)
            entry = found

    def _open(self, entry: str, offset: int, size: int | None) -> Reader:
        wanted: str | None = None
        if offset < 0:
            wanted = f"bytes={offset}"
        elif size is not None:
            wanted = f"bytes={offset}-{offset + size - 1}"
        elif offset:
            wanted = f"bytes={offset}-"
        calls, name = self._items.calls, self._name
        try:
            download = calls.download(name, entry, wanted)
        except ReadRangeError:
            return NoBytes(calls.get(name, entry).size)
        return BodyReader(
            name,
            _Body(download.response),
            item_size=download.size,
            remaining=download.length,
            version=download.version,
            errors=ERRORS,
            translate=lambda error: calls.translator.error(error, name),
        )


class _Body:
    """The body of a download, as it is sent."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        data: bytes = self._response.raw.read(size, decode_content=False)
        return data

    def close(self) -> None:
        self._response.close()
