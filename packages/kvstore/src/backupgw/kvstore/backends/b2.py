"""Backblaze B2 by its own protocol as a place: `backblaze:bucket/path`.

(`b2:` is borgstore's name for B2's S3 face, which is another backend.)

B2 keeps versions of a name. Here only the newest counts; older ones are removed when it is stored,
or kept for a lifecycle rule. It cannot refuse to create what exists: create-if-absent looks first,
and of two gateways that create one name at the same moment both succeed, and all see the version
that came last.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from b2sdk.v3 import B2HttpApiConfig

from ..layers.retry_schedule import Schedule
from ..names import RESERVED_PREFIX, InvalidName, KernelPath, check_folder, check_path, is_reserved
from . import part_checkpoints
from .b2_reader import open_range
from .b2_session import Bucket, Version
from .b2_target import KEPT, LEAST_PART, B2Target, upload_tag
from .b2_urls import REALM
from .b2_urls import from_url as from_url  # the entry point
from .base import Backend, Capabilities, ItemInfo, Reader, Writer, require_found
from .body_reader import open_steadily
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    NameTooLong,
    ObjectNotFound,
)
from .marked_folders import Keys, MarkedFolders
from .part_transfers import MEMORY, THREADS, PartPool
from .part_writer import PartWriter
from .plan import Plan
from .posixfs_leftovers import PART_AGE

_COPIED_AT_ONCE = 5_000_000_000
"""Bytes of the largest file that b2_copy_file takes."""
_COPIED_PART = 1 << 30
_MOST_NAME = 1024
_MOST_SEGMENT = 250
_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"
_REMOVED_AT_ONCE = 200


def simulated(
    name: str, root: str, key_id: str, key: str, api: B2HttpApiConfig, **options: Any
) -> B2:
    """Return a backend on other HTTP settings of the SDK, its simulator among them."""
    return B2(Bucket(name, root, key_id, key, REALM, api), **options)


class B2(Backend):
    """A path in a bucket; see `from_url`.

    Args:
        bucket: not logged in yet.
        hide: hide instead of removing.
        keep_versions: leave older versions alone.
        part_size, threads, memory: see `from_url`.
        copied_at_once: bytes of the largest item that one call copies.
        schedule: how often and how long the requests of writes and reads are repeated.
    """

    capabilities = Capabilities(
        ranges=True, resumable_write=True, copy=True, mtime=True, parallel_lists=True
    )

    def __init__(
        self,
        bucket: Bucket,
        *,
        hide: bool = False,
        keep_versions: bool = False,
        part_size: int = LEAST_PART,
        threads: int = THREADS,
        memory: int = MEMORY,
        copied_at_once: int = _COPIED_AT_ONCE,
        schedule: Schedule | None = None,
    ) -> None:
        self._bucket = bucket
        self._hide = hide
        self._keep_versions = keep_versions
        self._part_size = part_size
        self._copied_at_once = copied_at_once
        self._make_pool = partial(PartPool, threads=threads, memory=memory, schedule=schedule)
        self._schedule = schedule or Schedule()
        self._folders = MarkedFolders(_BucketKeys(bucket))
        self._pool: PartPool | None = None

    def __repr__(self) -> str:
        return f"B2({self._bucket.shown!r})"

    # -- the place itself

    def create(self) -> None:
        """Make the place, and the bucket where there is none (the key then needs writeBuckets)."""
        self._must_be_closed()
        self._bucket.authorize()
        if self._bucket.find() is None:
            self._bucket.make()
        elif next(self._bucket.below(""), None) is not None:
            raise BackendAlreadyExists(f"{self._bucket.shown} is not empty")
        self._folders.mark_root()

    def destroy(self) -> None:
        self._must_be_closed()
        self._bucket.authorize()
        if self._bucket.find() is None or not self._folders.exists(""):
            raise BackendDoesNotExist(f"{self._bucket.shown} does not exist")
        for file_id, _ in [*self._bucket.unfinished()]:
            self._cancel(file_id)
        versions = self._bucket.all_versions()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="b2-destroy") as workers:
            while batch := [*itertools.islice(versions, _REMOVED_AT_ONCE)]:
                for removed in [workers.submit(self._remove, version) for version in batch]:
                    removed.result()
        if not self._bucket.root:
            self._bucket.remove()

    def _remove(self, version: Version) -> None:
        with contextlib.suppress(ObjectNotFound):
            self._bucket.delete(version)

    def _must_be_closed(self) -> None:
        if self._pool is not None:
            raise BackendMustNotBeOpen(self._bucket.shown)

    def open(self) -> None:
        """Get ready.

        Raises:
            BackendDoesNotExist: there is no such bucket, or nothing below the path.
            PermissionDenied: the key is not accepted, or lacks what is needed.
        """
        self._must_be_closed()
        self._folders.forget_all()
        self._bucket.authorize()
        if self._bucket.find() is None:
            raise BackendDoesNotExist(f"{self._bucket.shown}: there is no such bucket")
        if self._bucket.root and not self._folders.exists(""):
            raise BackendDoesNotExist(f"{self._bucket.shown} does not exist")
        self._pool = self._make_pool()

    def close(self) -> None:
        pool = self._open
        self._pool = None
        pool.close()

    @property
    def _open(self) -> PartPool:
        if self._pool is None:
            raise BackendMustBeOpen(self._bucket.shown)
        return self._pool

    def reap(self, older_than: float) -> int:
        _ = self._open
        now, count, spared = time.time(), 0, set()
        for segment, version in self._bucket.below(""):
            if version is None or not segment.startswith(KEPT):
                continue
            if now - version.uploaded < max(older_than, PART_AGE):
                spared.add(segment.removeprefix(KEPT).partition("-")[0])
            else:
                self._remove(version)
                count += 1
        for file_id, begun in self._bucket.unfinished():
            if now - begun >= older_than and upload_tag(file_id) not in spared:
                self._cancel(file_id)
                count += 1
        return count

    def _cancel(self, file_id: str) -> None:
        with contextlib.suppress(ObjectNotFound):
            self._bucket.translate.call("", self._bucket.session.cancel_large_file, file_id)

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([name])

    def mkdirs(self, names: Iterable[str]) -> None:
        wanted = [self._checked(name) if name else check_folder(name) for name in names]
        _ = self._open
        self._folders.make(wanted)

    def rmdir(self, name: str) -> None:
        self._checked(name)
        _ = self._open
        self._folders.remove(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        _ = self._open
        return self._entries(name)

    def _entries(self, name: str) -> Iterator[ItemInfo]:
        found = not name
        for segment, version in self._bucket.below(name):
            found = True
            if is_reserved(segment):
                continue
            try:
                check_path(segment)
            except InvalidName:
                continue  # no name could address it
            yield _info(segment, version)
        if not found:
            raise ObjectNotFound(name)

    # -- items

    def _checked(self, name: str) -> str:
        """Return a name. Raises NameTooLong for what B2 has no room for."""
        check_path(name)
        if name.isascii() and len(name) <= _MOST_SEGMENT:
            return name
        file = self._bucket.file(name).encode()
        if len(file) > _MOST_NAME or any(len(part) > _MOST_SEGMENT for part in file.split(b"/")):
            raise NameTooLong(
                f"{name[:60]!a}…: B2 has room for {_MOST_NAME} bytes in a name, and for "
                f"{_MOST_SEGMENT} between two slashes"
            )
        return name

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        _ = self._open
        try:
            newest = self._bucket.head(self._checked(name)) if name else None
        except NameTooLong:
            return ItemInfo(name, exists=False, size=0, directory=False)
        if newest is not None:
            return _info(name, newest)
        exists = not name or self._folders.exists(name)
        return ItemInfo(name, exists=exists, size=0, directory=exists)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        self._found(name)
        _ = self._open
        return open_steadily(
            name,
            partial(open_range, self._bucket, name),
            offset=offset,
            size=size,
            schedule=self._schedule,
        )

    def _found(self, name: str) -> None:
        try:
            self._checked(name)
        except NameTooLong as error:
            raise ObjectNotFound(name) from error

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        self._checked(name)
        pool = self._open
        plan = Plan(name, size, if_absent, expected_hash)
        return PartWriter(pool, self._target(plan), plan)

    def _target(self, plan: Plan, state: str = "") -> B2Target:
        return B2Target(
            self._bucket,
            plan,
            self._part_size,
            partial(self._clear, plan.name),
            partial(self._remove_older, plan.name),
            state,
        )

    def resume_writer(self, token: str) -> Writer:
        pool, checkpoint = self._open, part_checkpoints.read_token(token)
        return PartWriter.resume(pool, self._target(checkpoint.plan, checkpoint.state), checkpoint)

    def abort_writer(self, token: str) -> None:
        pool, checkpoint = self._open, part_checkpoints.read_token(token)
        part_checkpoints.abandon(pool, self._target(checkpoint.plan, checkpoint.state), checkpoint)

    def _clear(self, name: str) -> None:
        if not is_reserved(name.rpartition("/")[2]):
            self._folders.before_writing(name)

    def _remove_older(self, name: str, newest: str) -> None:
        """Remove the versions that lie behind one."""
        if self._keep_versions:
            return
        versions = self._bucket.versions(name)
        ids = [version.id for version in versions]
        behind = versions[ids.index(newest) + 1 :] if newest in ids else []
        for version in reversed(behind):
            self._remove(version)

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        self._found(name)
        _ = self._open
        self._folders.before_removing(name)
        return self._delete(name)

    def _delete(self, name: str) -> int:
        if self._hide:
            if (found := self._bucket.head(name)) is None:
                raise ObjectNotFound(name)
            self._bucket.hide(name)
            return found.size
        versions = self._bucket.versions(name)
        if not versions or versions[0].hidden:
            raise ObjectNotFound(name)
        if self._keep_versions:
            self._bucket.hide(name)
            return versions[0].size
        for version in reversed(versions[1:]):  # the newest last, or an older one would be seen
            self._remove(version)
        self._bucket.delete(versions[0])
        return versions[0].size

    def move(self, name: str, new_name: str) -> None:
        self._found(name)
        self._checked(new_name)
        _ = self._open
        if name == new_name:
            require_found(self.info(name))
            return
        self.copy(name, new_name)
        self._folders.before_removing(name)
        self._delete(name)

    def copy(self, name: str, new_name: str) -> None:
        self._found(name)
        self._checked(new_name)
        _ = self._open
        bucket = self._bucket
        source = bucket.head(name)
        if source is None:
            raise ObjectNotFound(name)
        if name == new_name:
            return
        self._clear(new_name)
        replaced = bucket.head(new_name) is not None
        if source.size <= self._copied_at_once:
            told = bucket.translate.call(
                name, bucket.session.copy_file, source.id, bucket.file(new_name)
            )
            copied = str(told["fileId"])
        else:
            copied = self._copy_large(source, new_name)
        if replaced:
            self._remove_older(new_name, copied)

    def _copy_large(self, source: Version, new_name: str) -> str:
        bucket = self._bucket
        session, call = bucket.session, bucket.translate.call
        begun = call(
            new_name, session.start_large_file, bucket.id, bucket.file(new_name), "b2/x-auto", {}
        )
        file_id = str(begun["fileId"])
        try:
            tags = []
            for number, start in enumerate(range(0, source.size, _COPIED_PART), 1):
                span = (start, min(start + _COPIED_PART, source.size) - 1)
                told = call(new_name, session.copy_part, source.id, file_id, number, span)
                tags.append(told["contentSha1"])
            call(new_name, session.finish_large_file, file_id, tags)
        except BackendError:
            with contextlib.suppress(BackendError):
                self._cancel(file_id)
            raise
        return file_id

    def quarantine(self, name: str) -> str:
        self._found(name)
        kept = KernelPath(f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}")
        self.move(name, kept)
        return str(kept)


class _BucketKeys(Keys):
    """What the marks of folders stand on."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def has(self, name: str) -> bool:
        return self._bucket.head(name) is not None

    def below(self, name: str) -> Iterator[tuple[str, bool]]:
        for segment, version in self._bucket.below(name):
            yield segment, version is None

    def put(self, name: str) -> None:
        self._bucket.put(name, b"")

    def drop(self, name: str) -> None:
        for version in reversed(self._bucket.versions(name)):
            with contextlib.suppress(ObjectNotFound):
                self._bucket.delete(version)


def _info(name: str, version: Version | None) -> ItemInfo:
    if version is None:
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=version.size, directory=False, mtime=version.uploaded)
