"""Buckets of Amazon S3, and of what speaks its protocol: Ceph, MinIO, R2, Wasabi, Backblaze B2.

What is atomic here, and what is not, is in docs/places/s3.md.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import read_schedule
from ..names import RESERVED_PREFIX, KernelPath, check_folder, check_path, is_reserved
from . import part_checkpoints, s3_settings, s3_upkeep, s3_urls
from .api_calls import hook
from .base import Backend, Capabilities, ItemInfo, Reader, Writer
from .body_reader import NoBytes, open_steadily
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    NameTooLong,
    ObjectNotFound,
    ReadRangeError,
)
from .part_transfers import MEMORY, Attempts, PartPool, SentPart
from .part_writer import PartWriter
from .plan import Plan
from .posixfs_leftovers import STALE_AGE
from .s3_conditions import Conditions, find_out
from .s3_folders import Folders
from .s3_requests import Found, Requests
from .s3_settings import LEAST_PART, MOST_KEY, MOST_PART, MOST_PARTS, Settings
from .s3_target import Target

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PLACE = f"{RESERVED_PREFIX}-place"
"""The empty object by which a place exists that holds nothing else yet."""

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"

_COPIED = 1 << 30
"""Bytes of each part when a larger object is copied within the service."""


def from_url(
    url: str,
    *,
    profile: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
    style: str = "auto",
    cacert: str | None = None,
    checksums: str | None = None,
    storage_class: str | None = None,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    sse_customer_key: str | None = None,
    retention: object = None,
    retention_mode: str = "governance",
    part_size: object = LEAST_PART,
    parallel: object = 2,
    memory: object = None,
    connections: object = 32,
    timeout: object = 60,
    connect_timeout: object = 10,
    attempts: object = 5,
    deadline: object = "2 min",
    first_pause: object = "100 ms",
    atomic_create: object = None,
    delete_versions: object = None,
    create_bucket: object = True,
    on_call: object = None,
) -> S3:
    """Make the backend of a URL (`s3_urls`).

    Args:
        profile, access_key_id, secret_access_key, session_token: where the URL has none; without
            any, what boto3 finds: environment, shared files, the machine's role.
        endpoint: the service's URL, where it is not Amazon's and not in the place's.
        region: of the bucket.
        style: of the requests: "path", "virtual", or what fits the service ("auto").
        cacert: file of the authorities that may sign the service's certificate.
        checksums: "when_supported" (at Amazon) or "when_required" (elsewhere): whether CRC sums go
            with requests and are wanted with answers.
        storage_class: of what is written.
        sse: encryption by the service: "AES256", "aws:kms" or "aws:kms:dsse".
        sse_kms_key: which of KMS's keys.
        sse_customer_key: 32 bytes in base64 or hex, which the service encrypts with and forgets.
        retention: seconds for which nobody may remove what is written (object lock).
        retention_mode: "governance" or "compliance".
        part_size: bytes of a part; also the largest value that one request carries.
        parallel: parts of a value that are under way at a time.
        memory: bytes of parts that are held for all writers together.
        connections: that are kept; half as many parts are under way at a time.
        timeout, connect_timeout: seconds without a byte, and until a connection is there.
        attempts, deadline: how often, and for how many seconds, a request is tried.
        first_pause: seconds that the pause after the first attempt takes at most.
        atomic_create: whether the service refuses to replace an object when told so; found out
            where not given.
        delete_versions: whether deleting removes the object's version from a bucket that keeps
            versions; by default at Backblaze only.
        create_bucket: whether `create` makes a bucket that is not there.
        on_call: is told of each request (`api_calls`).

    Raises:
        BackendURLInvalid: the URL or an option cannot be.
    """
    location = s3_urls.parse(url)
    known = s3_settings.one_of
    try:
        profile, key_id, secret = s3_settings.credentials(
            location, profile, access_key_id, secret_access_key
        )
        endpoint = s3_settings.endpoint_of(location, endpoint, region)
        part = options.size("part_size", part_size, least=LEAST_PART)
        at_once = options.count("parallel", parallel, least=1)
        settings = Settings(
            bucket=location.bucket,
            path=location.path,
            profile=profile,
            key_id=key_id,
            secret=secret,
            session_token=session_token,
            endpoint=endpoint,
            region=s3_settings.region_of(endpoint, region),
            style=known("style", style, s3_settings.STYLES),
            cacert=None if cacert is None else s3_settings.readable("cacert", cacert),
            checksums=None
            if checksums is None
            else known("checksums", checksums, s3_settings.CHECKSUMS),
            storage_class=storage_class,
            sse=None if sse is None else known("sse", sse, s3_settings.SSES),
            sse_kms_key=sse_kms_key,
            sse_customer_key=None
            if sse_customer_key is None
            else s3_settings.customer_key(sse_customer_key),
            retention=None if retention is None else options.duration("retention", retention),
            lock_mode=known("retention_mode", retention_mode, s3_settings.LOCK_MODES),
            part_size=min(part, MOST_PART),
            parallel=at_once,
            memory=max(MEMORY, (at_once + 1) * part)
            if memory is None
            else options.size("memory", memory, least=part),
            connections=options.count("connections", connections, least=1),
            timeout=options.duration("timeout", timeout, least=1),
            connect_timeout=options.duration("connect_timeout", connect_timeout, least=0.1),
            schedule=read_schedule(attempts, deadline, first_pause),
            atomic_create=None
            if atomic_create is None
            else options.flag("atomic_create", atomic_create),
            delete_versions=location.scheme == "b2"
            if delete_versions is None
            else options.flag("delete_versions", delete_versions),
            create_bucket=options.flag("create_bucket", create_bucket),
            on_call=hook(on_call),
        )
    except OptionInvalid as error:
        raise BackendURLInvalid(f"{location.scheme}: {error}") from error
    return S3(settings)


def get_s3_backend(url: str) -> Backend | None:
    """Return the backend of a URL as borgstore's function of that name does; None for others."""
    return from_url(url) if url.startswith(("s3:", "b2:")) else None


class S3(Backend):
    """A bucket, or what lies below a path in it.

    Args:
        settings: which, and how it is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = f"{settings.path}/" if settings.path else ""
        self._requests = Requests(settings)
        self._folders = Folders(self._requests, self._root)
        self._pool: PartPool | None = None
        self._conditions = Conditions(whole=False, parts=False)
        self.capabilities = self._capabilities()

    def __repr__(self) -> str:
        return f"S3({self._settings.label!r})"

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=self._conditions.atomic_create,
            ranges=True,
            resumable_write=True,
            copy=True,
            mtime=True,
        )

    def _repeat(self, work: Callable[[], T]) -> T:
        return Attempts(self._settings.schedule, self._settings.label).result(work)

    # -- the place itself

    @property
    def _mark(self) -> str:
        """The key of an empty object that says that the place exists."""
        return self._root + _PLACE

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
                self._repeat(lambda: self._requests.create_bucket(label))
            self._repeat(lambda: self._requests.put(self._mark, b"", label, plain=True))
        finally:
            self._requests.close()

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

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no bucket, or nothing below the path.
            PermissionDenied: the key is not known, or may not list.
            BackendConnectionError: the service does not answer.
        """
        self._must_be_closed()
        try:
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
        self._pool.submit(self._reap_stale)

    def _reap_stale(self) -> None:
        """Clear away what is left of writers that died, beside what the place is opened for."""
        try:
            s3_upkeep.reap(self._requests, self._root, self._settings.label, STALE_AGE)
        except BackendError as error:  # a key that may not, a service that cannot: another time
            _log.debug("%s: leftovers were not cleared away: %s", self._settings.label, error)

    def _must_exist(self) -> None:
        if not self._exists():
            raise BackendDoesNotExist(f"{self._settings.label}: there is no object")

    def close(self) -> None:
        pool, self._pool = self._opened_pool, None
        pool.close()
        self._folders.forget_all()
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
        _ = self._opened_pool
        label = self._settings.label
        return self._repeat(lambda: s3_upkeep.reap(self._requests, self._root, label, older_than))

    # -- names

    def _key(self, name: str) -> str:
        """Return the key of a name to be written. Raises NameTooLong."""
        key = self._root + check_path(name)
        if len(key) > MOST_KEY // 4 and len(key.encode()) > MOST_KEY:
            raise NameTooLong(f"{name[:60]}…: its key would be longer than {MOST_KEY} bytes")
        return key

    def _key_there(self, name: str) -> str:
        """Return the key of a name that exists, if any does. Raises ObjectNotFound."""
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
        check_folder(name)
        _ = self._opened_pool
        if name:
            self._key(name)
            self._repeat(lambda: self._folders.make(name))

    def mkdirs(self, names: Iterable[str]) -> None:
        pool = self._opened_pool
        by_parent: dict[str, list[str]] = {}
        for name in names:
            if check_folder(name):
                self._key(name)
                by_parent.setdefault(name.rpartition("/")[0], []).append(name)
        for parent, folders in by_parent.items():
            missing = self._repeat(partial(self._folders.missing, parent, folders))

            def make(folder: str) -> None:
                self._repeat(lambda: self._folders.make_missing(folder))

            for _ in pool.each(make, missing):
                pass  # each raises what it failed for

    def rmdir(self, name: str) -> None:
        key = self._key_there(name)
        _ = self._opened_pool
        prefix, marks = self._folders.prefix(name), self._folders.marks(name)
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
        self._repeat(lambda: self._folders.make(parent))
        for found in page.found:
            self._remove(found, name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        _ = self._opened_pool
        return self._entries(name)

    def _entries(self, name: str) -> Iterator[ItemInfo]:
        prefix = self._folders.prefix(name)
        label = self._settings.label
        after: str | None = None
        empty = bool(name)
        while True:
            page = self._repeat(
                partial(self._requests.page, prefix, name or label, folders=True, after=after)
            )
            if empty and not page.found and not page.prefixes:
                raise ObjectNotFound(name)
            empty = False
            for key in page.prefixes:
                last = key[len(prefix) : -1]
                if last and not is_reserved(last):
                    yield ItemInfo(last, exists=True, size=0, directory=True)
            for found in page.found:
                last = found.key[len(prefix) :]
                if last and not is_reserved(last):
                    yield _item_info(last, found)
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
            return _item_info(name, found)
        if self._has_below(name):
            return missing._replace(exists=True, directory=True)
        return missing

    def _has_below(self, name: str) -> bool:
        prefix = self._folders.prefix(name)
        page = self._repeat(lambda: self._requests.page(prefix, name, folders=False, most=1))
        return bool(page.found)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        key = self._key_there(name)
        _ = self._opened_pool
        etag: str | None = None
        if size == 0 or (offset < 0 and size is not None):
            found = self._found(name)
            etag = found.etag
            offset = max(found.size + offset, 0) if offset < 0 else offset
            if size == 0 or offset >= found.size:
                return NoBytes(found.size, etag)
        return open_steadily(
            name,
            lambda at, left, version: self._open_range(key, name, at, left, version or etag),
            offset=offset,
            size=size,
            schedule=self._settings.schedule,
        )

    def _open_range(
        self, key: str, name: str, offset: int, size: int | None, etag: str | None
    ) -> Reader:
        wanted: str | None = None
        if offset < 0:
            wanted = f"bytes={offset}"
        elif size is not None:
            wanted = f"bytes={offset}-{offset + size - 1}"
        elif offset:
            wanted = f"bytes={offset}-"
        try:
            return self._requests.get(key, name, wanted=wanted, etag=etag)
        except ReadRangeError:
            found = self._requests.head(key, name)
            if found is None:
                raise ObjectNotFound(name) from None
            if offset < 0 < found.size:  # some refuse more of the end than there is
                return self._requests.get(key, name, wanted=None, etag=etag)
            return NoBytes(found.size, found.etag)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        pool, plan = self._opened_pool, Plan(name, size, if_absent, expected_hash)
        return PartWriter(pool, self._target(plan), plan)

    def _target(self, plan: Plan, state: str | None = None) -> Target:
        self._key(plan.name)
        return Target(
            self._settings,
            self._requests,
            self._folders,
            self._root,
            plan,
            conditions=self._conditions,
            state=state,
        )

    def resume_writer(self, token: str) -> Writer:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        target = self._target(checkpoint.plan, checkpoint.state)
        return PartWriter.resume(pool, target, checkpoint)

    def abort_writer(self, token: str) -> None:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        target = self._target(checkpoint.plan, checkpoint.state)
        part_checkpoints.abandon(pool, target, checkpoint)

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        view = memoryview(value).cast("B")
        if view.nbytes > self._settings.part_size:
            super().store(name, value)
            return
        _ = self._opened_pool
        target = self._target(Plan(name, view.nbytes, if_absent=False, expected_hash=None))
        data = value if isinstance(value, bytes | bytearray) else bytes(view)
        self._repeat(lambda: target.put_whole(data))

    def delete(self, name: str) -> None:
        check_path(name)
        _ = self._opened_pool
        self._remove(self._found(name), name)

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
        target = self._key(new_name)
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
        self._folders.make(name.rpartition("/")[0])
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


def _item_info(name: str, found: Found) -> ItemInfo:
    return ItemInfo(name, exists=True, size=found.size, directory=False, mtime=found.mtime)
