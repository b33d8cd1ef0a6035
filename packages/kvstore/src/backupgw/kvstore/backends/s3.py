"""Buckets of Amazon S3, and of what speaks its protocol: Ceph, MinIO, R2, Wasabi, Backblaze B2.

What is atomic here, and what is not, is in docs/places/s3.md.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import cast

from ..names import RESERVED_PREFIX, KernelPath, check_path
from . import s3_upkeep
from .base import Backend, Capabilities, Reader
from .body_reader import NoBytes
from .bucket_marks import BucketKeys
from .bucket_place import BucketPlace, wanted_range
from .errors import BackendError, ObjectNotFound, ReadRangeError
from .marked_folders import MARK
from .part_checkpoints import Checkpoint
from .part_transfers import PartPool, SentPart
from .plan import Plan
from .posixfs_leftovers import STALE_AGE
from .s3_conditions import Conditions, find_out
from .s3_options import from_url
from .s3_records import Found
from .s3_requests import Requests
from .s3_settings import MOST_PARTS, Settings
from .s3_target import Target
from .s3_told import NotDirect

_log = logging.getLogger(__name__)

_PLACE = f"{RESERVED_PREFIX}-place"
"""The empty object by which a place exists that holds nothing else yet."""

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"

_PAGE = 1000
"""Objects of a page: what S3 lists at most."""

_HANDED_ON = "s3"
"""What the service knows of conditions, in what processes hand on."""

_COPIED = 1 << 30
"""Bytes of each part when a larger object is copied within the service."""


def get_s3_backend(url: str) -> Backend | None:
    """Return the backend of a URL as borgstore's function of that name does; None for others."""
    return from_url(url) if url.startswith(("s3:", "b2:")) else None


class S3(BucketPlace[Found]):
    """A bucket, or what lies below a path in it.

    Args:
        settings: which, and how it is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._requests = Requests(settings)
        super().__init__(
            settings.label,
            settings.path,
            settings.schedule,
            self._requests,
            _Marks(self._requests, self._key, self._decoded),
            page_size=_PAGE,
            create_bucket=settings.create_bucket,
        )
        self._conditions = Conditions(whole=False, parts=False)
        self._proven = False
        """Whether another process has just found out that the place is there, and what it can."""
        self.capabilities = self._capabilities()

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=self._conditions.atomic_create,
            ranges=True,
            resumable_write=True,
            copy=True,
            mtime=True,
            parallel_lists=True,
        )

    # -- the place itself

    def _make_bucket(self) -> None:
        self._requests.create_bucket(self._label)

    def _mark_root(self) -> None:
        mark = self._root + _PLACE
        self._repeat(lambda: self._requests.put(mark, b"", self._label, plain=True))

    def destroy(self) -> None:
        """Remove all objects of the place. The bucket stays, and so do older versions of objects
        where it keeps them, unless `delete_versions` is set."""
        self._must_be_closed()
        try:
            self._must_exist()
            s3_upkeep.remove_all(
                self._requests,
                self._root,
                self._settings.label,
                self._repeat,
                versions=self._settings.delete_versions,
            )
        finally:
            self._folders.forget_all()
            self._requests.close()

    def prepare_fork(self) -> None:
        self._requests.prepare_fork()

    def handed_on(self) -> Mapping[str, object]:
        return {_HANDED_ON: (self._conditions.whole, self._conditions.parts)}

    def take_over(self, found: Mapping[str, object]) -> None:
        known = found[_HANDED_ON]
        assert isinstance(known, tuple)
        self._conditions = Conditions(*known)
        self._proven = True

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no bucket, or nothing below the path.
            PermissionDenied: the key is not known, or may not list.
            BackendConnectionError: the service does not answer.
        """
        self._must_be_closed()
        try:
            if not self._proven:
                self._must_exist()
                self._conditions = find_out(self._settings, self._requests, self._root)
        except BaseException:
            self._requests.close()
            raise
        self.capabilities = self._capabilities()
        self._pool = PartPool(
            threads=max(self._settings.connections // 2, 1),
            memory=self._settings.memory,
            schedule=self._settings.schedule,
        )
        if not self._proven:
            self._pool.submit(self._reap_stale)

    def _reap_stale(self) -> None:
        """Clear away what is left of writers that died, beside what the place is opened for."""
        try:
            s3_upkeep.reap(self._requests, self._root, self._settings.label, STALE_AGE)
        except BackendError as error:  # a key that may not, a service that cannot: another time
            _log.debug("%s: leftovers were not cleared away: %s", self._settings.label, error)

    def reap(self, older_than: float) -> int:
        _ = self._opened_pool
        label = self._settings.label
        return self._repeat(lambda: s3_upkeep.reap(self._requests, self._root, label, older_than))

    # -- folders

    def _make_folders(self, names: Sequence[str]) -> None:
        self._repeat(lambda: self._folders.make(names))

    def rmdir(self, name: str) -> None:
        key = self._key_there(name)
        _ = self._opened_pool
        prefix = self._prefix(name)
        marks = {prefix + MARK, prefix}  # the second is made by consoles
        most = len(marks) + 1
        page = self._repeat(lambda: self._requests.page(prefix, name, folders=False, most=most))
        self._folders.forget(name)
        if not page.found:
            if self._repeat(lambda: self._requests.head(key, name)) is not None:
                raise BackendError(f"{name}: is an item, not a folder")
            raise ObjectNotFound(name)
        if any(found.key not in marks for found in page.found):
            raise BackendError(f"{name}: is not empty")
        parent = name.rpartition("/")[0]
        self._make_folders([parent])
        for found in page.found:
            self._remove(found, name)

    # -- items

    def _version(self, found: Found) -> str:
        return found.etag

    def _open_range(
        self, key: str, name: str, offset: int, size: int | None, version: str | None
    ) -> Reader:
        wanted = wanted_range(offset, size)
        try:
            return self._requests.get(key, name, wanted=wanted, etag=version)
        except ReadRangeError:
            found = self._requests.head(key, name)
            if found is None:
                raise ObjectNotFound(name) from None
            if offset < 0 < found.size:  # some refuse more of the end than there is
                return self._requests.get(key, name, wanted=None, etag=version)
            return NoBytes(found.size, found.etag)

    def _target(self, plan: Plan, checkpoint: Checkpoint | None = None) -> Target:
        self._key(plan.name)
        return Target(
            self._settings,
            self._requests,
            self._folders,
            self._root,
            plan,
            conditions=self._conditions,
            state=None if checkpoint is None else checkpoint.state,
        )

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        check_path(name)
        view = memoryview(value).cast("B")
        if view.nbytes > self._settings.part_size:
            super().store(name, value)
            return
        _ = self._opened_pool
        target = self._target(Plan(name, view.nbytes, if_absent=False, expected_hash=None))
        data = value if isinstance(value, bytes | bytearray) else bytes(view)
        self._repeat(lambda: target.put_whole(data))

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        """As `Backend.delete_sized`. By one round trip in folders that are known to be there: where
        an item is in their place, `rclone serve s3` removes that for a key beneath it."""
        check_path(name)
        _ = self._opened_pool
        key = self._key_there(name)
        unsure = False
        if not self._settings.delete_versions and self._folders.knows(name.rpartition("/")[0]):
            with contextlib.suppress(NotDirect):
                removed = self._requests.look_and_delete(key, name)
                if isinstance(removed, Found):
                    return removed.size
                if removed is False:
                    raise ObjectNotFound(name)
                unsure = True
        try:
            found = self._found(name)
        except ObjectNotFound:
            if unsure:
                return 0  # the answer was lost
            raise
        self._remove(found, name)
        return found.size

    def _remove(self, found: Found, name: str, *, etag: str | None = None) -> None:
        version = found.version if self._settings.delete_versions else None
        self._repeat(lambda: self._requests.delete(found.key, name, version=version, etag=etag))

    # -- within the service

    def move(self, name: str, new_name: str) -> None:
        """Copy, and remove: not one step. What is stored under `name` between the two is lost,
        but at Amazon, which removes only what was copied."""
        found = self._copied(name, new_name)
        if name != new_name:
            self._remove(found, name, etag=found.etag if self._settings.amazon else None)

    def copy(self, name: str, new_name: str) -> None:
        self._copied(name, new_name)

    def _copied(self, name: str, new_name: str) -> Found:
        """Copy an item, whole; return what was copied."""
        check_path(name)
        target = self._key(check_path(new_name))
        _ = self._opened_pool

        def attempt() -> Found:
            found = self._found(name)
            if name != new_name:
                self._make_room(new_name)
                if found.size > self._settings.copied_at_once:
                    self._copy_in_parts(found, target, new_name)
                else:
                    self._requests.copy(found, target, name)
                self._requests.lock(target, new_name)
            return found

        return self._repeat(attempt)

    def _make_room(self, name: str) -> None:
        """See that a name's folder is there, and that it is none itself."""
        self._folders.make([name.rpartition("/")[0]])
        if self._folders.knows(name) or self._has_below(name):
            raise BackendError(f"{name}: is a folder")

    def _copy_in_parts(self, found: Found, target: str, what: str) -> None:
        step = max(min(_COPIED, self._settings.copied_at_once), -(-found.size // MOST_PARTS))
        spans = [
            range(start, min(start + step, found.size)) for start in range(0, found.size, step)
        ]
        upload = self._requests.begin(target, what, mark=None)

        def copy_part(numbered: tuple[int, range]) -> SentPart:
            number, span = numbered
            tag = self._repeat(
                lambda: self._requests.copy_part(found, target, upload, number, span, what)
            )
            return SentPart(number, len(span), tag)

        try:
            parts = [*self._opened_pool.each(copy_part, enumerate(spans, 1))]
            self._requests.complete(target, upload, parts, what)
        except BaseException:
            self._requests.abandon(target, upload, what)
            raise

    def quarantine(self, name: str) -> str:
        check_path(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


class _Marks(BucketKeys[Found]):
    """What the marks of folders stand on; whoever asks for them repeats."""

    def put_mark(self, key: str, name: str) -> None:
        cast(Requests, self._bucket).put(key, b"", name, plain=True)

    def drop_mark(self, key: str, name: str) -> None:
        cast(Requests, self._bucket).delete(key, name, etag=None)
