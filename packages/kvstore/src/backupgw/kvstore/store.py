"""`Store`: borgstore's key/value store on top of any backend.

It adds to a backend: namespaces whose keys are nested in folders, soft deletion, recursive lists
and statistics. The API, the layout on the backend and the errors are borgstore 0.7's. Different
from it: operations of many threads overlap, and lists come in the backend's order, which need not
be sorted.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from . import parts
from .backends.base import CHUNK, Backend, ItemInfo
from .backends.errors import BackendURLInvalid, NoBackendGiven, ObjectNotFound
from .constants import DEL_SUFFIX
from .names import InvalidName, check_key
from .namespaces import Namespaces
from .parts import Part
from .registry import open_place, redact_url, schemes
from .statistics import Statistics
from .utils import hashing
from .utils.nesting import unnest

logger = logging.getLogger(__name__)

Value = bytes | bytearray | memoryview


def get_backend(url: str) -> Backend | None:
    """Return the backend for `url`, or None where no backend has its scheme.

    Raises:
        BackendURLInvalid: the scheme's backend does not understand the rest.
        BackendDoesNotExist: the library that reaches the place is not installed.
    """
    return open_place(url) if url.partition(":")[0].lower() in schemes() else None


class Store:
    """A key/value store.

    Args:
        url: the place; or
        backend: a backend object, not yet open.
        config: `{namespace: {"levels": [ints]}}`. Items are looked for at all levels and new ones
            go to the last; the longest namespace that matches a name counts.
        max_concurrency: operations that may run at a time; others wait.

    Raises:
        NoBackendGiven: neither url nor backend.
        BackendURLInvalid, BackendDoesNotExist: as `open_place`.
        ValueError: the config is none.

    Any number of threads may use one Store. A sequence of operations is not atomic.
    """

    def __init__(
        self,
        url: str | None = None,
        backend: Backend | None = None,
        config: Mapping[str, Mapping[str, object]] | None = None,
        *,
        max_concurrency: int = 32,
    ) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        if backend is None and url is not None:
            backend = get_backend(url)
            if backend is None:
                raise BackendURLInvalid(
                    f"Invalid or unsupported Backend Storage URL: {redact_url(url)}"
                )
        if backend is None:
            raise NoBackendGiven("You need to give a backend instance or a backend url.")
        self.url = url
        self.backend = backend
        self._namespaces = Namespaces.from_config(config or {})
        self._slots = threading.BoundedSemaphore(max_concurrency)
        self._statistics = Statistics()

    def __repr__(self) -> str:
        return f"<Store(backend={type(self.backend).__name__!r})>"

    # -- the store as a whole

    def set_levels(self, levels: Mapping[str, Sequence[int]], create: bool = False) -> None:
        """Replace the levels: `{namespace: [ints]}`; with `create` the folders are made too."""
        self._namespaces = Namespaces(levels)
        if create:
            self.create_levels()

    @property
    def levels(self) -> list[tuple[str, Sequence[int]]]:
        """(namespace, levels), the longest namespace first."""
        return self._namespaces.by_length

    def create_levels(self) -> None:
        """Make all folders that nesting needs, ahead of time. The store must be closed.

        That is 256 to the power of the largest level, in each namespace.
        """
        with self, self._slots:
            self.backend.mkdirs(self._namespaces.folders())

    def create(self) -> None:
        """Make the place. Raises BackendAlreadyExists, BackendMustNotBeOpen."""
        self.backend.create()

    def destroy(self) -> None:
        """Remove the place with all items. Raises BackendDoesNotExist, BackendMustNotBeOpen."""
        self.backend.destroy()

    def open(self) -> None:
        """Get ready. Raises BackendDoesNotExist, BackendMustNotBeOpen."""
        self.backend.open()

    def close(self) -> None:
        """Raises BackendMustBeOpen."""
        self.backend.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def quota(self) -> dict[str, int]:
        """Return `limit` and `usage` in bytes, -1 where the place does not say."""
        with self._slots:
            quota = self.backend.quota()
        return {"limit": quota.limit, "usage": quota.usage}

    @property
    def stats(self) -> dict[str, float]:
        """Calls, times in seconds, volumes in bytes and throughput in bytes per second.

        They tell what users of this Store saw; calls that raised are left out.
        """
        return self._statistics.as_dict()

    # -- items

    def find(self, name: str, *, deleted: bool = False) -> str:
        """Return the nested name of an item, and where it would go if there is none."""
        with self._slots:
            return self._find(name, deleted=deleted)

    def info(self, name: str, *, deleted: bool = False) -> ItemInfo:
        """Tell about an item; `exists` is False for a missing one. `name` is the last segment."""
        with self._operation("info", name):
            nested = self._find(name, deleted=deleted)
            return self.backend.info(nested)._replace(name=nested.rpartition("/")[2])

    def load(
        self, name: str, *, size: int | None = None, offset: int = 0, deleted: bool = False
    ) -> bytes:
        """Return `size` bytes (None: all) from `offset` on; a negative one counts from the end.

        Raises:
            ObjectNotFound: no such item.
        """
        with self._operation("load", name) as operation:
            nested = self._find(name, deleted=deleted)
            self._statistics.add({"backend_load_calls": 1})
            value = self.backend.load(nested, offset=offset, size=size)
            operation.volume = len(value)
            self._statistics.add({"backend_load_volume": len(value)})
            return value

    def store(self, name: str, value: Value) -> None:
        """Write an item, replacing it where it lies or making it at the last level.

        Raises:
            ValueError: a memoryview that is not C-contiguous.
        """
        data = _as_bytes_view(value)
        with self._operation("store", name) as operation:
            nested = self._find(name)
            self._statistics.add({"backend_store_calls": 1})
            self.backend.store(nested, data)
            operation.volume = len(data)
            self._statistics.add({"backend_store_volume": len(data)})

    def delete(self, name: str, *, deleted: bool = False) -> None:
        """Remove an item for good; for soft deletion see `move`. Raises ObjectNotFound."""
        with self._operation("delete", name):
            nested = self._find(name, deleted=deleted)
            self._statistics.add({"backend_delete_calls": 1})
            self.backend.delete(nested)

    def move(
        self,
        name: str,
        new_name: str | None = None,
        *,
        delete: bool = False,
        undelete: bool = False,
        change_level: bool = False,
        deleted: bool = False,
    ) -> None:
        """Rename an item (`new_name`), soft-delete it, undelete it, or bring it to the last level.

        Raises:
            ObjectNotFound: no such item.
            ValueError: nothing of that was asked for.
        """
        if not (new_name or delete or undelete or change_level):
            raise ValueError("Generic move requires new_name to be given.")
        with self._operation("move", name):
            if delete:
                source = self._find(name)
                target = check_key(source + DEL_SUFFIX)
            elif undelete:
                source = self._find(name, deleted=True)
                target = source.removesuffix(DEL_SUFFIX)
            elif change_level:
                source = self._find(name, deleted=deleted)
                last = self._namespaces.levels(name)[-1]
                target = self._namespaces.nested(name, last, DEL_SUFFIX if deleted else "")
            else:
                source = self._find(name, deleted=deleted)
                target = self._find(new_name or "", deleted=deleted)
            self.backend.move(source, target)

    def list(self, name: str, deleted: bool = False) -> Iterator[ItemInfo]:
        """Yield the items of a namespace, `""` for all, through all nesting; names without it.

        Lazy, and the store can be used meanwhile. Only live items, or with `deleted` only the
        soft-deleted ones under their original names. What is no valid key is left out.

        Raises:
            ObjectNotFound: there is no such namespace; by the first `next`.
        """
        if name:
            check_key(name)
        self._statistics.add({"list_calls": 1})
        count = 0
        try:
            for info in self._list_below(name):
                if info.name.endswith(DEL_SUFFIX) == deleted:
                    count += 1
                    yield info._replace(name=info.name.removesuffix(DEL_SUFFIX))
        finally:
            logger.debug("list %r -> %d items", name, count)

    def hash(self, name: str, algorithm: str = "sha256", *, deleted: bool = False) -> str:
        """Return the hex digest of an item by one of hashlib's algorithms, or blake3 where that
        library is installed.

        Raises:
            ObjectNotFound: no such item.
            ValueError: no such algorithm.
        """
        with self._operation("hash", name):
            nested = self._find(name, deleted=deleted)
            if algorithm in hashlib.algorithms_available:
                hashing.new(algorithm)  # some of those have no length of their own
                return self.backend.hash(nested, algorithm)
            digest = hashing.new(algorithm)
            with self.backend.open_reader(nested) as reader:
                while chunk := reader.read(CHUNK):
                    digest.update(chunk)
            return digest.hexdigest()

    def gather(
        self, sources: Iterable[Part], *, namespace: str | None = None, deleted: bool = False
    ) -> bytes:
        """Return the concatenation of (name, offset, size) parts of items in one namespace.

        Names are without the namespace.

        Raises:
            ReadRangeError: an item ends before its part does.
            ObjectNotFound: there is no such item.
            ValueError: a source that is none.
        """
        checked = parts.checked(sources)
        with self._operation("gather", namespace or "") as operation:
            operation.volume = 0
            found = self._find_parts(checked, namespace, deleted=deleted)
            if not checked:
                return b""
            self._statistics.add({"backend_gather_calls": 1})
            value = self.backend.gather(found)
            operation.volume = len(value)
            self._statistics.add({"backend_gather_volume": len(value)})
            return value

    def defrag(
        self,
        sources: Iterable[Part],
        *,
        target: str | None = None,
        algorithm: str | None = None,
        namespace: str | None = None,
        deleted: bool = False,
    ) -> str:
        """Write the concatenation of parts as a new item of the same namespace; return its name.

        Args:
            target: the new name, without the namespace. None names it by its content's hash.
            algorithm: for that hash, as in `hash`.

        Raises:
            ReadRangeError, ObjectNotFound: as in `gather`; nothing is written.
            ValueError: neither target nor algorithm, or a source that is none.
        """
        checked = parts.checked(sources)
        prefix = f"{namespace}/" if namespace else ""
        if target is not None and "/" in target:
            raise ValueError(f"a target's namespace is given separately: {target!r}")
        with self._slots:
            found = self._find_parts(checked, namespace, deleted=deleted)
            if target is not None:
                nested = self._find(prefix + target, deleted=deleted)
                self.backend.defrag(found, nested)
            elif algorithm is not None:
                nested = self._defrag_by_hash(found, prefix, algorithm)
            else:
                raise ValueError("Either target or algorithm must be given for defrag")
        return unnest(nested, prefix).removeprefix(prefix)

    # -- inside

    def _find(self, name: str, *, deleted: bool = False) -> str:
        suffix = DEL_SUFFIX if deleted else ""
        *earlier, last = self._namespaces.levels(name)
        for level in earlier:
            nested = self._namespaces.nested(name, level, suffix)
            info = self.backend.info(nested)
            if info.exists and not info.directory:  # a short key may also name a nesting folder
                return nested
        # There is one candidate left; whether it exists makes no difference.
        return self._namespaces.nested(name, last, suffix)

    def _find_parts(
        self, checked: Sequence[Part], namespace: str | None, *, deleted: bool
    ) -> Sequence[Part]:
        """Return the parts under nested names; those of no bytes are left out."""
        prefix = f"{namespace}/" if namespace else ""
        found = {
            name: self._find(prefix + name, deleted=deleted) for name in {p[0] for p in checked}
        }
        return [(found[name], offset, size) for name, offset, size in checked if size]

    def _defrag_by_hash(self, found: Sequence[Part], prefix: str, algorithm: str) -> str:
        """Write an item whose name is its hash; read twice, so that nothing need be held."""
        name = parts.hash_of(self.backend, found, algorithm)
        last = self._namespaces.levels(prefix + name)[-1]
        nested = self._namespaces.nested(prefix + name, last, "")
        parts.write_verified(self.backend, found, nested, algorithm, name)
        return nested

    def _list_below(self, name: str) -> Iterator[ItemInfo]:
        entries = self.backend.list(name)
        while True:
            # One entry at a time: the caller may take as long as it likes between two, and use
            # the store meanwhile.
            with self._slots:
                start = time.perf_counter_ns()
                info = next(entries, None)
                self._statistics.add({"list_time": time.perf_counter_ns() - start})
            if info is None:
                return
            if not _is_key(info.name):
                continue
            if not info.directory:
                yield info
                continue
            try:
                yield from self._list_below(f"{name}/{info.name}" if name else info.name)
            except ObjectNotFound:
                continue  # the folder vanished since it was listed

    @contextmanager
    def _operation(self, what: str, name: str) -> Iterator[_Operation]:
        """Run an operation in one of the slots; count it if it ends well, log it anyway."""
        operation = _Operation()
        with self._slots:
            start = time.perf_counter_ns()
            try:
                yield operation
            except Exception as error:
                logger.debug("%s %r -> %s", what, name, type(error).__name__)
                raise
            took = time.perf_counter_ns() - start
        self._statistics.finish(what, took, operation.volume)
        logger.debug("%s %r -> %s B in %.1f ms", what, name, operation.volume or 0, took / 1e6)


class _Operation:
    """What an operation moved, in bytes; None for those that move nothing."""

    volume: int | None = None


def _as_bytes_view(value: Value) -> memoryview:
    try:
        return memoryview(value).cast("B")
    except TypeError:
        if isinstance(value, memoryview):
            # borgstore raises ValueError for it
            raise ValueError("value must be a C-contiguous memoryview") from None  # noqa: TRY004
        raise


def _is_key(segment: str) -> bool:
    try:
        check_key(segment)
    except InvalidName:
        return False
    return True
