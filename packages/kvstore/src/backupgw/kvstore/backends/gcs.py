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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from ..layers.retry_reader import ReplacedMeanwhile
from ..layers.retry_schedule import Schedule
from ..names import (
    RESERVED_PREFIX,
    KernelPath,
    check_path,
    is_reserved,
)
from . import part_checkpoints
from .base import Capabilities, Reader
from .body_reader import BodyReader, NoBytes
from .bucket_marks import BucketKeys
from .bucket_place import BucketPlace, wanted_range
from .errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    ReadRangeError,
)
from .gcs_downloads import Body
from .gcs_requests import Found, Requests
from .gcs_target import STAGING, GcsTarget
from .google_errors import ERRORS
from .google_session import Login
from .google_target import PIECES
from .part_transfers import Attempts, PartPool
from .plan import Plan
from .posixfs_leftovers import PART_AGE
from .rclone_names import decoded, encoded

T = TypeVar("T")

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"
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


class Gcs(BucketPlace[Found]):
    """A bucket, or what lies below a path in it.

    Args:
        settings: which, and how it is used.
    """

    capabilities = Capabilities(
        atomic_create=True,
        ranges=True,
        resumable_write=True,
        copy=True,
        mtime=True,
        parallel_lists=True,
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._requests = Requests(
            settings.login,
            settings.bucket,
            project=settings.project,
            endpoint=settings.endpoint,
            storage_class=settings.storage_class,
        )
        marks = _Marks(self._requests, self._key, decoded)
        marks.schedule, marks.label = settings.schedule, settings.label
        super().__init__(
            settings.label,
            settings.path,
            settings.schedule,
            self._requests,
            marks,
            page_size=_PAGE,
            create_bucket=settings.create_bucket,
        )

    def _encoded(self, name: str) -> str:
        return encoded(name)

    def _decoded(self, segment: str) -> str:
        return decoded(segment)

    # -- the place itself

    def _make_bucket(self) -> None:
        self._requests.create_bucket(self._label, self._settings.location)

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

    def reap(self, older_than: float) -> int:
        """Remove values that never got their names, and what checkpoints left. Uploads that nobody
        finished are forgotten by the service after a week, and cost nothing."""
        _ = self._opened_pool
        count, now = 0, time.time()
        for folder, age in ((STAGING, older_than), (PIECES, max(older_than, PART_AGE))):
            prefix = f"{self._root}{folder}/"
            for page in self._pages(prefix, folder, folders=False):
                for found in page.found:
                    if now - found.mtime >= age:
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

    # -- folders

    def rmdir(self, name: str) -> None:
        self._key_there(name)
        _ = self._opened_pool
        self._folders.remove(name)

    # -- items

    def _version(self, found: Found) -> str:
        return str(found.generation)

    def _open_range(
        self, key: str, name: str, offset: int, size: int | None, version: str | None
    ) -> Reader:
        wanted = wanted_range(offset, size)
        try:
            download = self._requests.get(key, name, wanted=wanted, generation=version)
        except ReadRangeError:
            found = self._requests.head(key, name)
            if found is None:
                raise ObjectNotFound(name) from None
            return NoBytes(found.size, str(found.generation))
        except ObjectNotFound as error:
            if version is None:
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

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


class _Marks(BucketKeys[Found]):
    """What the marks of folders stand on."""

    schedule: Schedule
    label: str

    def repeat(self, work: Callable[[], T]) -> T:
        return Attempts(self.schedule, self.label).result(work)

    def put_mark(self, key: str, name: str) -> None:
        cast(Requests, self._bucket).put(key, b"", name)

    def drop_mark(self, key: str, name: str) -> None:
        with contextlib.suppress(ObjectNotFound):
            cast(Requests, self._bucket).delete(key, name)
