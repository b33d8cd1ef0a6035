"""A cache of items in a backend of its own: the Store's and the cache layer's.

It never makes anything fail: whatever its backend raises is counted, logged now and then, and
the place is used instead. Several processes may share one: entries are written whole
or not at all, and a name is locked while it changes. Before the place changes the old entry goes,
so that a crash leaves no entry that is out of date.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ..backends.base import Backend, ItemInfo
from ..backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    ObjectExists,
    ObjectNotFound,
)
from ..backends.posixfs import PosixFS
from ..ledger.locks import ByteLocks
from ..names import RESERVED_PREFIX
from ..statistics import Statistics
from .cache_entries import EntryDamaged, EntryReader, EntryWriter, item_size
from .cache_index import CacheIndex, Listed
from .cache_policy import CacheMode, CachePolicy, Policies

logger = logging.getLogger(__name__)

_LOCKS = f"{RESERVED_PREFIX}-cache.locks"


QUIET = 300.0
"""Seconds in which a cache that goes on failing in one way is not told of again."""


class Cache:
    """The cached items of a place.

    Args:
        backend: where they lie; opened and closed by this object.
        policies: what is cached how.
        statistics: gets the `cache_…` counts.
    """

    def __init__(self, backend: Backend, policies: Policies, statistics: Statistics) -> None:
        self.backend = backend
        self.policies = policies
        self.disabled = False
        self._statistics = statistics
        self._indexes: dict[str, CacheIndex] = {}
        self._locks: ByteLocks | _ThreadLocks = _ThreadLocks()
        self._told: dict[str, float] = {}
        self._opened = False

    def mode_of(self, name: str) -> CacheMode:
        """Return how a name, or a namespace with its `/`, is cached."""
        return self._policy_of(name).mode

    def _policy_of(self, name: str) -> CachePolicy:
        for namespace, policy in self.policies:
            if name.startswith(namespace):
                return policy
        return CachePolicy()

    def _index_of(self, name: str) -> CacheIndex | None:
        for namespace, _ in self.policies:
            if name.startswith(namespace):
                return self._indexes.get(namespace)
        return None

    # -- the cache as a whole

    def open(self, *, create: bool = False) -> None:
        """Get ready. Where that fails the cache is off until it is opened again; never raises."""
        self.disabled = False
        try:
            try:
                self.backend.open()
            except BackendDoesNotExist:
                if not create:
                    raise
                self.backend.create()
                self.backend.open()
        except Exception as error:  # noqa: BLE001 - a broken cache never fails an operation
            logger.warning("cache open failed, disabling cache: %r", error)
            self.disabled = True
            return
        self._opened = True
        if isinstance(self.backend, PosixFS):
            try:
                self._locks = ByteLocks(f"{self.backend.path}/{_LOCKS}")
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("lock file", _LOCKS, error)
        self._indexes = {
            namespace: CacheIndex(policy, lambda namespace=namespace: self._list(namespace))  # type: ignore[misc]
            for namespace, policy in self.policies
            if policy.limited
        }
        self._tidy()

    def create(self) -> None:
        """Make the place of the cache. One that is there already, from another store maybe, loses
        what it holds of these namespaces. Never raises."""
        try:
            self.backend.create()
        except BackendAlreadyExists:
            self.open()
            self.clear("")
            self.close()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("create", "", error)

    def destroy(self) -> None:
        """Remove what the cache holds, and its place if nothing else lies there. Never raises."""
        self.open()
        if self.disabled:
            return
        try:
            self.clear("")
            for namespace, _ in self.policies:
                if folder := namespace.rstrip("/"):
                    self._remove_folders(folder)
            empty = next(self.backend.list(""), None) is None
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("destroy", "", error)
            empty = False
        self.close()
        if empty:
            try:
                self.backend.destroy()
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("destroy", "", error)

    def _remove_folders(self, folder: str) -> None:
        with suppress(BackendError):  # not empty, or never made
            for info in [*self.backend.list(folder)]:
                if info.directory:
                    self._remove_folders(f"{folder}/{info.name}")
            self.backend.rmdir(folder)

    def close(self) -> None:
        """Evict once more, and let go. Never raises."""
        if not self._opened:
            return
        self._opened = False
        self._tidy()
        self._indexes = {}
        locks, self._locks = self._locks, _ThreadLocks()
        with suppress(BackendError):
            locks.close()
        try:
            self.backend.close()
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning("cache close failed: %r", error)

    def _tidy(self) -> None:
        for namespace, index in self._indexes.items():
            try:
                index.rescan(whole=True)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("scan", namespace, error)
            self._evict(index, 0)

    @contextmanager
    def changing(self, *names: str) -> Iterator[None]:
        """Hold names while the place and the cache change, among all who share the cache."""
        try:
            with ExitStack() as stack:
                stack.enter_context(self._locks.changing("", names))
                held = stack.pop_all()
        except BackendError as error:
            self._failed("lock", names[0], error)
            yield
            return
        with held:
            yield

    # -- items

    def load(self, name: str, offset: int, size: int | None) -> bytes | None:
        """Return a range of an item, None where it is not in the cache."""
        reader = self.reader(name, offset, size)
        if reader is None:
            return None
        try:
            with reader:
                parts = [*iter(lambda: reader.read(1 << 20), b"")]
        except Exception as error:  # noqa: BLE001 - as above
            self.damaged(name, error)
            self._statistics.add({"cache_hits": -1})
            return None
        value = parts[0] if len(parts) == 1 else b"".join(parts)
        self._statistics.add({"cache_load_volume": len(value)})
        return value

    def reader(self, name: str, offset: int, size: int | None) -> EntryReader | None:
        """Return a reader, None where the item is not in the cache. Its `read` can raise."""
        if self.disabled:
            return None
        self._statistics.add({"cache_load_calls": 1})
        index = self._index_of(name)
        try:
            reader = EntryReader(self.backend, name, offset, size)
        except ObjectNotFound:
            self._statistics.add({"cache_misses": 1})
            if index is not None:
                index.removed(name)  # somebody else has evicted it
            return None
        except Exception as error:  # noqa: BLE001 - as above
            self.damaged(name, error)
            return None
        self._statistics.add({"cache_hits": 1})
        if index is not None:
            index.used(name, reader.item_size)
        return reader

    def damaged(self, name: str, error: Exception) -> None:
        """Take note of an entry that cannot be read; one that is damaged goes."""
        self._failed("load", name, error)
        if isinstance(error, EntryDamaged):
            self.forget(name)

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        """Put a whole item into the cache."""
        filling = self.filling(name, memoryview(value).nbytes)
        if filling is not None:
            filling.write(value)
            filling.commit()

    def filling(self, name: str, size: int) -> Filling | None:
        """Begin to put an item into the cache; None where it does not fit, or nothing does."""
        if self.disabled:
            return None
        index = self._index_of(name)
        if index is not None:
            if not index.fits(size):
                self.delete(name)
                return None
            try:
                index.rescan(whole=False)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("scan", name, error)
            index.removed(name)  # what is replaced needs no room beside it
            self._evict(index, size)
        self._statistics.add({"cache_store_calls": 1})
        try:
            writer = EntryWriter(self.backend.open_writer(name))
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("store", name, error)
            return None
        return Filling(self, name, writer)

    def filled(self, name: str, size: int) -> None:
        """An item was put into the cache."""
        self._statistics.add({"cache_store_volume": size})
        index = self._index_of(name)
        if index is not None:
            index.added(name, size)
            self._evict(index, 0)  # others may have filled the room that was made for it

    def delete(self, name: str) -> None:
        """Remove an item from the cache, counted."""
        if not self.disabled:
            self._statistics.add({"cache_delete_calls": 1})
            self.forget(name)

    def forget(self, name: str) -> None:
        """Remove an item from the cache if it is there."""
        if self.disabled:
            return
        index = self._index_of(name)
        if index is not None:
            index.removed(name)
        try:
            self.backend.delete(name)
        except ObjectNotFound:
            return
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("delete", name, error)

    @contextmanager
    def moving(self, name: str, new_name: str) -> Iterator[None]:
        """Move an entry along with its item, which moves in the block. Call with both held."""
        if self.disabled:
            yield
            return
        aside = f".moving-{secrets.token_hex(4)}"
        moved = self._rename(name, name + aside)
        replaced = self._rename(new_name, new_name + aside)
        try:
            yield
        except ObjectNotFound:
            if moved:
                self._put_back(name + aside, name)
            if replaced:
                self._put_back(new_name + aside, new_name)
            raise
        except BaseException:
            self.forget(name + aside)  # whether the item moved is not known
            self.forget(new_name + aside)
            raise
        if replaced:
            self.forget(new_name + aside)
        if moved:
            self._put_back(name + aside, new_name)

    def _put_back(self, aside: str, name: str) -> None:
        index = self._index_of(name)
        if self._rename(aside, name) and index is not None:
            with suppress(Exception):  # its size is learnt at the next use or scan, too
                index.used(name, item_size(self.backend.info(name).size))

    def _rename(self, name: str, new_name: str) -> bool:
        index = self._index_of(name)
        if index is not None:
            index.removed(name)
        try:
            self.backend.move(name, new_name)
        except ObjectNotFound:
            return False
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("move", name, error)
            self.forget(name)
            return False
        return True

    def clear(self, folder: str) -> None:
        """Remove everything below a folder, "" for all that is cached."""
        if self.disabled:
            return
        folders = [folder] if folder else [namespace.rstrip("/") for namespace, _ in self.policies]
        for each in folders:
            try:
                for info in self._walk(each):
                    self.delete(info.name)
            except ObjectNotFound:
                continue
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("list", each, error)

    # -- inside

    def _evict(self, index: CacheIndex, needed: int) -> None:
        for name in index.evictable(needed):
            self.delete(name)

    def _list(self, namespace: str) -> Listed:
        try:
            for info in self._walk(namespace.rstrip("/")):
                yield info.name, item_size(info.size), max(info.atime, info.mtime)
        except ObjectNotFound:
            return  # nothing was cached there yet

    def _walk(self, folder: str) -> Iterator[ItemInfo]:
        for info in self.backend.list(folder):
            name = f"{folder}/{info.name}" if folder else info.name
            if info.directory:
                with suppress(ObjectNotFound):
                    yield from self._walk(name)
            else:
                yield info._replace(name=name)

    def _failed(self, what: str, name: str, error: Exception) -> None:
        self._statistics.add({"cache_errors": 1})
        now = time.monotonic()
        told = self._told.get(what)
        level = logging.DEBUG if told is not None and now - told < QUIET else logging.WARNING
        if level == logging.WARNING:
            self._told[what] = now
        logger.log(level, "cache %s failed for %r: %r", what, name, error)


class Filling:
    """An item on its way into a cache; never raises."""

    def __init__(self, cache: Cache, name: str, writer: EntryWriter) -> None:
        self._cache = cache
        self._name = name
        self._writer: EntryWriter | None = writer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._try(lambda writer: writer.write(data))

    def commit(self) -> None:
        writer = self._writer
        if writer is None:
            return
        self._try(lambda writer: writer.commit())
        if self._writer is not None:
            self._writer = None
            self._cache.filled(self._name, writer.size)

    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _try(self, work: Callable[[EntryWriter], None]) -> None:
        if self._writer is None:
            return
        try:
            work(self._writer)
        except ObjectExists:
            self.abort()
        except Exception as error:  # noqa: BLE001 - a broken cache never fails an operation
            self._cache._failed("store", self._name, error)
            self.abort()


class _ThreadLocks:
    """Names held among the threads of this process, where there is no folder to share."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: Counter[str] = Counter()

    @contextmanager
    def changing(self, _place: str, names: Sequence[str]) -> Iterator[None]:
        wanted = set(names)
        with self._changed:
            self._changed.wait_for(lambda: not any(self._held[name] for name in wanted))
            self._held.update(wanted)
        try:
            yield
        finally:
            with self._changed:
                for name in wanted:
                    del self._held[name]
                self._changed.notify_all()

    def close(self) -> None:
        """Nothing to let go of."""
