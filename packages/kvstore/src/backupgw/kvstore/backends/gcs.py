"""Google Cloud Storage as a place: `gs://bucket/path`.

What the service gives: each value of a name has a generation, and requests can be made under the
condition that a name has a certain one, or none. So create-if-absent is atomic, a reader goes on in
the value that it began, and moving removes only what was copied. What it does not: there are no
folders (they are marked, see `marked_folders`), and moving is copying and deleting.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..layers.retry_reader import ReplacedMeanwhile
from ..layers.retry_schedule import Schedule
from ..names import (
    RESERVED_PREFIX,
    InvalidName,
    KernelPath,
    check_folder,
    check_path,
    is_reserved,
)
from . import part_checkpoints
from .base import Backend, Capabilities, ItemInfo, Reader, Writer
from .body_reader import BodyReader, NoBytes, open_steadily
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    ReadRangeError,
)
from .gcs_requests import Body, Found, Page, Requests
from .gcs_target import PIECES, STAGING, GcsTarget
from .google_errors import ERRORS
from .google_session import Login
from .marked_folders import Keys, MarkedFolders
from .part_transfers import Attempts, PartPool
from .part_writer import PartWriter
from .plan import Plan
from .posixfs_leftovers import PART_AGE
from .rclone_names import decoded, encoded

T = TypeVar("T")

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"
_MOST_KEY = 1024
"""Bytes of a key in UTF-8 (https://cloud.google.com/storage/docs/objects#naming)."""
_PAGE = 500
_TIMES_IN_THE_WAY = 20
"""How often somebody else may write an item that is being copied, before it is given up."""


@dataclass(frozen=True)
class Settings:
    """Which place, and how it is used; see `gcs_urls.from_url`."""

    bucket: str
    path: str
    login: Login
    endpoint: str | None
    project: str | None
    location: str | None
    storage_class: str | None
    create_bucket: bool
    part_size: int
    memory: int
    schedule: Schedule

    @property
    def label(self) -> str:
        """What messages call the place."""
        return f"gs://{self.bucket}/{self.path}"


class Gcs(Backend):
    """A bucket, or what lies below a path in it.

    Args:
        settings: which, and how it is used.
    """

    capabilities = Capabilities(
        atomic_create=True, ranges=True, resumable_write=True, copy=True, mtime=True
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = f"{encoded(settings.path)}/" if settings.path else ""
        self._requests = Requests(
            settings.login,
            settings.bucket,
            project=settings.project,
            endpoint=settings.endpoint,
            storage_class=settings.storage_class,
        )
        self._folders = MarkedFolders(
            _BucketKeys(self._requests, self._key, self._repeat), asks=False
        )
        self._pool: PartPool | None = None

    def __repr__(self) -> str:
        return f"Gcs({self._settings.label!r})"

    def _repeat(self, work: Callable[[], T]) -> T:
        return Attempts(self._settings.schedule, self._settings.label).result(work)

    # -- the place itself

    def _exists(self) -> bool:
        """Whether there is anything. Raises BackendDoesNotExist where there is no bucket."""
        label = self._settings.label
        page = self._repeat(lambda: self._requests.page(self._root, label, folders=False, most=1))
        return bool(page.found)

    def create(self) -> None:
        """Make the place; the bucket too, where `create_bucket` says so.

        Raises:
            BackendAlreadyExists: there are objects.
            BackendDoesNotExist: there is no bucket, and none is to be made.
        """
        self._must_be_closed()
        label = self._settings.label
        try:
            try:
                if self._exists():
                    raise BackendAlreadyExists(f"{label}: there are objects already")
            except BackendDoesNotExist:
                if not self._settings.create_bucket:
                    raise
                self._repeat(lambda: self._requests.create_bucket(label, self._settings.location))
            self._folders.mark_root()
        finally:
            self._requests.close()

    def destroy(self) -> None:
        """Remove all objects of the place; the bucket stays. What the bucket keeps of removed
        objects (versions, soft delete) is its own affair."""
        self._must_be_closed()
        label = self._settings.label
        try:
            self._must_exist()
            while True:
                page = self._repeat(
                    lambda: self._requests.page(self._root, label, folders=False, most=_PAGE)
                )
                if not page.found:
                    break
                self._repeat(partial(self._requests.delete_batch, page.found, label))
        finally:
            self._folders.forget_all()
            self._requests.close()

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no bucket, or nothing below the path.
            PermissionDenied: the sign-in is not accepted, or may not list.
            BackendConnectionError: the service does not answer.
        """
        self._must_be_closed()
        self._folders.forget_all()
        try:
            self._must_exist()
        except BaseException:
            self._requests.close()
            raise
        self._pool = PartPool(memory=self._settings.memory, schedule=self._settings.schedule)

    def _must_exist(self) -> None:
        if not self._exists():
            raise BackendDoesNotExist(f"{self._settings.label}: there is no object")

    def close(self) -> None:
        pool, self._pool = self._opened_pool, None
        pool.close()
        self._requests.close()

    @property
    def _opened_pool(self) -> PartPool:
        if self._pool is None:
            raise BackendMustBeOpen(self._settings.label)
        return self._pool

    def _must_be_closed(self) -> None:
        if self._pool is not None:
            raise BackendMustNotBeOpen(self._settings.label)

    def reap(self, older_than: float) -> int:
        """Remove values that never got their names, and what checkpoints left. Uploads that nobody
        finished are forgotten by the service after a week, and cost nothing."""
        _ = self._opened_pool
        count, now = 0, time.time()
        for folder, age in ((STAGING, older_than), (PIECES, max(older_than, PART_AGE))):
            prefix = f"{self._root}{folder}/"
            for page in self._pages(prefix, folder, folders=False):
                for found in page:
                    if isinstance(found, Found) and now - found.mtime >= age:
                        count += self._reaped(found)
        return count

    def _reaped(self, found: Found) -> int:
        if found.key.endswith(f"/{RESERVED_PREFIX}-folder"):
            return 0
        try:
            self._repeat(
                lambda: self._requests.delete(found.key, found.key, generation=found.generation)
            )
        except (ObjectNotFound, ObjectExists):
            return 0
        return 1

    # -- names

    def _key(self, name: str) -> str:
        """Return the key of a name, which may be the root's mark. Raises NameTooLong."""
        key = self._root + encoded(name)
        if len(key) > _MOST_KEY // 4 and len(key.encode()) > _MOST_KEY:
            raise NameTooLong(f"{name[:60]!a}…: its key would be longer than {_MOST_KEY} bytes")
        return key

    def _key_there(self, name: str) -> str:
        """Return the key of a name that exists, if any does. Raises ObjectNotFound."""
        check_path(name)
        try:
            return self._key(name)
        except NameTooLong as error:
            raise ObjectNotFound(name) from error

    def _found(self, name: str) -> Found:
        """Return an item. Raises ObjectNotFound."""
        key = self._key_there(name)
        found = self._repeat(lambda: self._requests.head(key, name))
        if found is None:
            raise ObjectNotFound(name)
        return found

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([name])

    def mkdirs(self, names: Iterable[str]) -> None:
        wanted = [check_folder(name) for name in names]
        _ = self._opened_pool
        for name in wanted:
            self._key(name)
        self._folders.make(wanted)

    def rmdir(self, name: str) -> None:
        self._key_there(name)
        _ = self._opened_pool
        self._folders.remove(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        _ = self._opened_pool
        return self._entries(name)

    def _entries(self, name: str) -> Iterator[ItemInfo]:
        prefix = f"{self._key(name)}/" if name else self._root
        empty = bool(name)
        for page in self._pages(prefix, name or self._settings.label, folders=True):
            for found in page:
                empty = False
                key = found if isinstance(found, str) else found.key
                last = decoded(key[len(prefix) :].rstrip("/"))
                if is_reserved(last) or not _nameable(last):
                    continue
                yield _info(last, None if isinstance(found, str) else found)
        if empty:
            raise ObjectNotFound(name)

    def _pages(self, prefix: str, what: str, *, folders: bool) -> Iterator[Sequence[Found | str]]:
        """Yield pages of a list: objects, and prefixes for folders."""
        after: str | None = None
        while True:
            page = self._repeat(
                partial(self._requests.page, prefix, what, folders=folders, after=after, most=_PAGE)
            )
            yield [*page.prefixes, *page.found]
            if (after := page.after) is None:
                return

    # -- items

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        _ = self._opened_pool
        missing = ItemInfo(name, exists=False, size=0, directory=False)
        if not name:
            return missing._replace(exists=True, directory=True)
        try:
            key = self._key(name)
        except NameTooLong:
            return missing
        found = self._repeat(lambda: self._requests.head(key, name))
        if found is not None:
            return _info(name, found)
        if self._has_below(name):
            return missing._replace(exists=True, directory=True)
        return missing

    def _has_below(self, name: str) -> bool:
        prefix = f"{self._key(name)}/"
        page = self._repeat(lambda: self._requests.page(prefix, name, folders=False, most=1))
        return bool(page.found)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        key = self._key_there(name)
        _ = self._opened_pool
        generation: str | None = None
        if size == 0 or (offset < 0 and size is not None):
            found = self._found(name)
            generation = str(found.generation)
            offset = max(found.size + offset, 0) if offset < 0 else offset
            if size == 0 or offset >= found.size:
                return NoBytes(found.size, generation)
        return open_steadily(
            name,
            lambda at, left, version: self._open_range(key, name, at, left, version or generation),
            offset=offset,
            size=size,
            schedule=self._settings.schedule,
        )

    def _open_range(
        self, key: str, name: str, offset: int, size: int | None, generation: str | None
    ) -> Reader:
        wanted: str | None = None
        if offset < 0:
            wanted = f"bytes={offset}"
        elif size is not None:
            wanted = f"bytes={offset}-{offset + size - 1}"
        elif offset:
            wanted = f"bytes={offset}-"
        try:
            download = self._requests.get(key, name, wanted=wanted, generation=generation)
        except ReadRangeError:
            found = self._requests.head(key, name)
            if found is None:
                raise ObjectNotFound(name) from None
            return NoBytes(found.size, str(found.generation))
        except ObjectNotFound as error:
            if generation is None:
                raise
            raise ReplacedMeanwhile(f"{name}: it was replaced or removed meanwhile") from error
        return BodyReader(
            name,
            Body(download, name),
            item_size=download.size,
            remaining=download.length,
            version=download.generation,
            errors=ERRORS,
            translate=lambda error: self._requests.translator.error(error, name),
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
        pool, plan = self._opened_pool, Plan(name, size, if_absent, expected_hash)
        return PartWriter(pool, self._target(plan), plan)

    def _target(
        self, plan: Plan, checkpoint: part_checkpoints.Checkpoint | None = None
    ) -> GcsTarget:
        return GcsTarget(
            self._requests,
            self._root,
            self._key(plan.name),
            plan,
            self._settings.part_size,
            partial(self._clear, plan.name),
            checkpoint,
        )

    def _clear(self, name: str) -> None:
        if not is_reserved(name.rpartition("/")[2]):
            self._folders.before_writing(name)

    def resume_writer(self, token: str) -> Writer:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        target = self._target(checkpoint.plan, checkpoint)
        return PartWriter.resume(pool, target, checkpoint)

    def abort_writer(self, token: str) -> None:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        target = self._target(checkpoint.plan, checkpoint)
        part_checkpoints.abandon(pool, target, checkpoint)

    def delete(self, name: str) -> None:
        key = self._key_there(name)
        _ = self._opened_pool
        parent = name.rpartition("/")[0]
        if parent:
            self._keep_folder(name, parent)
        Attempts(self._settings.schedule, name).land(
            lambda: self._requests.delete(key, name),
            lambda: self._requests.head(key, name) is None,
        )

    def _keep_folder(self, name: str, parent: str) -> None:
        """See that a folder does not go with its last item."""
        if not self._folders.knows(parent):
            self._found(name)  # or a folder would come to be where nothing is
            self._folders.make([parent])

    # -- within the service

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=False)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=True)

    def _move(self, name: str, new_name: str, *, if_absent: bool) -> None:
        """Copy, and remove what was copied: what was stored under `name` meanwhile stays."""
        found = self._copied(name, new_name, if_absent=if_absent)
        if name == new_name:
            return
        parent = name.rpartition("/")[0]
        if parent and not is_reserved(parent.partition("/")[0]):
            self._folders.make([parent])
        try:
            self._repeat(
                lambda: self._requests.delete(found.key, name, generation=found.generation)
            )
        except (ObjectNotFound, ObjectExists):
            return  # somebody has removed or replaced it since

    def copy(self, name: str, new_name: str) -> None:
        self._copied(name, new_name, if_absent=False)

    def _copied(self, name: str, new_name: str, *, if_absent: bool) -> Found:
        """Copy an item; return what was copied."""
        check_path(name)
        check_path(new_name)
        _ = self._opened_pool
        target = self._key(new_name)
        found = self._found(name)
        if name == new_name:
            if if_absent:
                raise ObjectExists(f"{new_name} exists")
            return found
        self._clear(new_name)
        if self._has_below(new_name):
            raise BackendError(f"{new_name}: is a folder")
        for _ in range(_TIMES_IN_THE_WAY):
            try:
                self._copy(found, target, new_name, if_absent=if_absent)
            except ObjectExists:
                again = self._found(name)
                if again.generation == found.generation:
                    raise
                found = again  # it was replaced meanwhile, and so was what we asked to copy
            else:
                return found
        raise BackendError(f"{name}: others write it all the time", retryable=True)

    def _copy(self, found: Found, target: str, new_name: str, *, if_absent: bool) -> None:
        """Copy one value of an item, or raise ObjectExists where it is another by now."""

        def landed() -> bool:
            there = self._requests.head(target, new_name)
            return there is not None and there.crc32c == found.crc32c != ""

        Attempts(self._settings.schedule, new_name).land(
            lambda: self._requests.copy(found, target, new_name, if_absent=if_absent), landed
        )

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        parts = [(check_path(name), offset, size) for name, offset, size in sources]

        def load(part: tuple[str, int, int]) -> bytes:
            name, offset, size = part
            data = self.load(name, offset=offset, size=size)
            if len(data) != size:
                raise ReadRangeError(f"{name}: {len(data)} of {size} bytes at {offset}")
            return data

        return b"".join(self._opened_pool.each(load, parts))

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


class _BucketKeys(Keys):
    """What the marks of folders stand on."""

    def __init__(
        self,
        requests: Requests,
        key: Callable[[str], str],
        repeat: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._requests = requests
        self._key = key
        self._repeat = repeat

    def has(self, name: str) -> bool:
        key = self._key(name)
        return self._repeat(lambda: self._requests.head(key, name)) is not None

    def below(self, name: str) -> Iterator[tuple[str, bool]]:
        prefix = f"{self._key(name)}/" if name else self._key("")
        after: str | None = None
        while True:
            page = self._page(prefix, name, after)
            for key in page.prefixes:
                yield decoded(key[len(prefix) : -1]), True
            for found in page.found:
                yield decoded(found.key[len(prefix) :]), False
            if (after := page.after) is None:
                return

    def _page(self, prefix: str, name: str, after: str | None) -> Page:
        page: Page = self._repeat(
            lambda: self._requests.page(prefix, name, folders=True, after=after, most=_PAGE)
        )
        return page

    def put(self, name: str) -> None:
        key = self._key(name)
        self._repeat(lambda: self._requests.put(key, b"", name))

    def drop(self, name: str) -> None:
        key = self._key(name)

        def attempt() -> None:
            with contextlib.suppress(ObjectNotFound):
                self._requests.delete(key, name)

        self._repeat(attempt)


def _nameable(segment: str) -> bool:
    """Whether a name could address it: others may have made it."""
    try:
        check_path(segment)
    except InvalidName:
        return False
    return "/" not in segment


def _info(name: str, found: Found | None) -> ItemInfo:
    if found is None:
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=found.size, directory=False, mtime=found.mtime)
