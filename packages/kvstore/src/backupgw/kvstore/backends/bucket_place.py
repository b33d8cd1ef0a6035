"""What places in buckets have in common: objects by key, listed in pages, and no folders.

`gcs` and `s3` add what their services promise and how a value is written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from ..layers.retry_schedule import Schedule
from ..names import check_folder, check_path, is_nameable, is_reserved
from . import part_checkpoints
from .base import Backend, ItemInfo, Reader, Writer
from .body_reader import NoBytes, open_steadily
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    NameTooLong,
    ObjectNotFound,
    ReadRangeError,
)
from .marked_folders import MARK, Keys, MarkedFolders
from .part_transfers import Attempts, PartPool, ResumableTarget
from .part_writer import PartWriter
from .plan import Plan

T = TypeVar("T")

MOST_KEY = 1024
"""Bytes of a key in UTF-8, at both services."""


class Found(Protocol):
    """An object, as a listing tells of it; `mtime` in seconds since the epoch."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime(self) -> float: ...


F = TypeVar("F", bound=Found)
F_co = TypeVar("F_co", bound=Found, covariant=True)


class Page(Protocol[F_co]):
    """A part of a listing; `after` leads to the next, None where there is none."""

    @property
    def found(self) -> Sequence[F_co]: ...
    @property
    def prefixes(self) -> Sequence[str]: ...
    @property
    def after(self) -> str | None: ...


class Requests(Protocol[F_co]):
    """What is asked of the bucket, nothing tried again."""

    def head(self, key: str, what: str) -> F_co | None:
        """Tell about an object, None where there is none."""

    def page(
        self, prefix: str, what: str, *, folders: bool, after: str | None = None, most: int = 1000
    ) -> Page[F_co]:
        """List objects; with `folders`, keys with a further slash by their prefix up to it."""

    def close(self) -> None:
        """Let go of the connections."""


class BucketPlace(Backend, Generic[F]):
    """A bucket, or what lies below a path in it.

    Args:
        label: what messages call the place.
        path: in the bucket, "" for all of it.
        schedule: how requests are repeated.
        requests: of the bucket.
        marks: what folders' marks stand on.
        page_size: objects of a page at most.
        create_bucket: whether `create` makes a bucket that is not there.
    """

    def __init__(
        self,
        label: str,
        path: str,
        schedule: Schedule,
        requests: Requests[F],
        marks: Keys,
        *,
        page_size: int,
        create_bucket: bool,
    ) -> None:
        self._label = label
        self._root = f"{self._encoded(path)}/" if path else ""
        self._schedule = schedule
        self._bucket = requests
        self._folders = MarkedFolders(marks, asks=False)
        self._page_size = page_size
        self._create_bucket = create_bucket
        self._pool: PartPool | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._label!r})"

    def _repeat(self, work: Callable[[], T]) -> T:
        return Attempts(self._schedule, self._label).result(work)

    # -- what a service adds

    @abstractmethod
    def _make_bucket(self) -> None:
        """Make the bucket; one that is ours already is fine."""

    @abstractmethod
    def _version(self, found: F) -> str:
        """Return what tells one value of a name from another."""

    @abstractmethod
    def _open_range(
        self, key: str, name: str, offset: int, size: int | None, version: str | None
    ) -> Reader:
        """Begin to read; see `body_reader.open_steadily`."""

    @abstractmethod
    def _target(
        self, plan: Plan, checkpoint: part_checkpoints.Checkpoint | None = None
    ) -> ResumableTarget:
        """Return where a value goes, or goes on."""

    def _encoded(self, name: str) -> str:
        """Return what stands in a key for a name."""
        return name

    def _decoded(self, segment: str) -> str:
        """Return what a segment of a key stands for."""
        return segment

    # -- the place itself

    def _exists(self) -> bool:
        """Whether there is anything. Raises BackendDoesNotExist where there is no bucket."""
        page = self._repeat(
            lambda: self._bucket.page(self._root, self._label, folders=False, most=1)
        )
        return bool(page.found)

    def _must_exist(self) -> None:
        if not self._exists():
            raise BackendDoesNotExist(f"{self._label}: there is no object")

    def create(self) -> None:
        """Make the place; the bucket too, where `create_bucket` says so.

        Raises:
            BackendAlreadyExists: there are objects.
            BackendDoesNotExist: there is no bucket, and none is to be made.
        """
        self._must_be_closed()
        try:
            try:
                if self._exists():
                    raise BackendAlreadyExists(f"{self._label}: there are objects already")
            except BackendDoesNotExist:
                if not self._create_bucket:
                    raise
                self._repeat(self._make_bucket)
            self._mark_root()
        finally:
            self._bucket.close()

    def _mark_root(self) -> None:
        """See that the place is there while it holds nothing."""
        self._repeat(self._folders.mark_root)

    def close(self) -> None:
        pool, self._pool = self._opened_pool, None
        pool.close()
        self._folders.forget_all()
        self._bucket.close()

    @property
    def _opened_pool(self) -> PartPool:
        if self._pool is None:
            raise BackendMustBeOpen(self._label)
        return self._pool

    def _must_be_closed(self) -> None:
        if self._pool is not None:
            raise BackendMustNotBeOpen(self._label)

    # -- names

    def _key(self, name: str) -> str:
        """Return the key of a name. Raises NameTooLong."""
        key = self._root + self._encoded(name)
        if len(key) > MOST_KEY // 4 and len(key.encode()) > MOST_KEY:
            raise NameTooLong(f"{name[:60]!a}…: its key would be longer than {MOST_KEY} bytes")
        return key

    def _key_there(self, name: str) -> str:
        """Return the key of a name that exists, if any does. Raises ObjectNotFound."""
        check_path(name)
        try:
            return self._key(name)
        except NameTooLong as error:
            raise ObjectNotFound(name) from error

    def _prefix(self, folder: str) -> str:
        """Return what the keys below a folder begin with."""
        return f"{self._key(folder)}/" if folder else self._root

    def _found(self, name: str) -> F:
        """Return an item. Raises ObjectNotFound."""
        key = self._key_there(name)
        found = self._repeat(lambda: self._bucket.head(key, name))
        if found is None:
            raise ObjectNotFound(name)
        return found

    # -- folders

    def mkdir(self, name: str) -> None:
        self.mkdirs([name])

    def mkdirs(self, names: Iterable[str]) -> None:
        wanted = [check_folder(name) for name in names]
        _ = self._opened_pool
        for name in filter(None, wanted):
            self._key(f"{name}/{MARK}")
        self._make_folders(wanted)

    def _make_folders(self, names: Sequence[str]) -> None:
        self._folders.make(names)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        _ = self._opened_pool
        return self._entries(name)

    def _entries(self, name: str) -> Iterator[ItemInfo]:
        prefix = self._prefix(name)
        empty = bool(name)
        for page in self._pages(prefix, name or self._label, folders=True):
            for key in page.prefixes:
                empty = False
                last = self._decoded(key[len(prefix) : -1])
                if _is_shown(last):
                    yield info_of(last, None)
            for found in page.found:
                empty = False
                last = self._decoded(found.key[len(prefix) :])
                if _is_shown(last):
                    yield info_of(last, found)
        if empty:
            raise ObjectNotFound(name)

    def _pages(self, prefix: str, what: str, *, folders: bool) -> Iterator[Page[F]]:
        """List objects; with `folders`, keys with a further slash by their prefix up to it."""
        after: str | None = None
        while True:
            page = self._repeat(
                partial(
                    self._bucket.page,
                    prefix,
                    what,
                    folders=folders,
                    after=after,
                    most=self._page_size,
                )
            )
            yield page
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
        found = self._repeat(lambda: self._bucket.head(key, name))
        if found is not None:
            return info_of(name, found)
        if self._has_below(name):
            return missing._replace(exists=True, directory=True)
        return missing

    def _has_below(self, name: str) -> bool:
        prefix = self._prefix(name)
        page = self._repeat(lambda: self._bucket.page(prefix, name, folders=False, most=1))
        return bool(page.found)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        key = self._key_there(name)
        _ = self._opened_pool
        known: str | None = None
        if size == 0 or (offset < 0 and size is not None):
            found = self._found(name)
            known = self._version(found)
            offset = max(found.size + offset, 0) if offset < 0 else offset
            if size == 0 or offset >= found.size:
                return NoBytes(found.size, known)
        return open_steadily(
            name,
            lambda at, left, version: self._open_range(key, name, at, left, version or known),
            offset=offset,
            size=size,
            schedule=self._schedule,
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

    def resume_writer(self, token: str) -> Writer:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        return PartWriter.resume(pool, self._target(checkpoint.plan, checkpoint), checkpoint)

    def abort_writer(self, token: str) -> None:
        pool, checkpoint = self._opened_pool, part_checkpoints.read_token(token)
        part_checkpoints.abandon(pool, self._target(checkpoint.plan, checkpoint), checkpoint)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        parts = [(check_path(name), offset, size) for name, offset, size in sources]

        def load(part: tuple[str, int, int]) -> bytes:
            name, offset, size = part
            data = self.load(name, offset=offset, size=size)
            if len(data) != size:
                raise ReadRangeError(f"{name}: {len(data)} of {size} bytes at {offset}")
            return data

        return b"".join(self._opened_pool.each(load, parts))


def wanted_range(offset: int, size: int | None) -> str | None:
    """Return what a Range header says for a part of an object, None for all of it."""
    if offset < 0:
        return f"bytes={offset}"
    if size is not None:
        return f"bytes={offset}-{offset + size - 1}"
    return f"bytes={offset}-" if offset else None


def info_of(name: str, found: Found | None) -> ItemInfo:
    """Return the record of an object, or of a folder where there is none."""
    if found is None:
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=found.size, directory=False, mtime=found.mtime)


def _is_shown(segment: str) -> bool:
    return bool(segment) and not is_reserved(segment) and is_nameable(segment)
