"""`Store`: borgstore's key/value store on top of any backend.

It adds to a backend: namespaces whose keys are nested in folders, soft deletion, recursive lists,
a cache and statistics. The API, the layout on the backend and the errors are borgstore 0.7's.
Different from it: operations of many threads overlap, and lists come in the backend's order, which
need not be sorted.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from . import parts
from .backends._base import StoreValue, validate_value
from .backends.adapted import Foreign, as_backend
from .backends.base import CHUNK, Backend, ItemInfo
from .backends.errors import BackendURLInvalid, NoBackendGiven

# borgstore's users import these from here
from .backends.errors import ObjectNotFound as ObjectNotFound
from .backends.errors import ReadRangeError as ReadRangeError
from .cached_items import CachedItems
from .constants import DEL_SUFFIX, ROOTNS
from .layers.cache_policy import CacheMode as CacheMode  # borgstore's users import it here
from .layers.cache_policy import CachePolicy as CachePolicy
from .names import check_key
from .namespaces import Namespaces
from .parts import Part
from .primary import Emulation, Primary
from .registry import redact_url
from .slots import Slots
from .statistics import Statistics
from .store_cache import cache_of
from .store_listing import items_below
from .store_operation import StoreOperation
from .store_places import Permissions
from .store_places import get_backend as get_backend  # borgstore's users import it here
from .utils import hashing
from .utils.nesting import unnest

logger = logging.getLogger(__name__)


class Store:
    """A key/value store.

    Args:
        url: the place; or
        backend: a backend object, not yet open: a `Backend`, or one written for borgstore
            (`backends.adapted`).
        config: `{namespace: {"levels": [ints]}}`. Items are looked for at all levels and new ones
            go to the last; the longest namespace that matches a name counts. Beside the levels
            may stand "cache" ("off", "writethrough" or "mirror"), with "size" (bytes) and
            "max_age" (seconds since the last use) as its limits.
        permissions: borgstore's letters by name, for a file URL.
        cache_url, cache_backend: where the cache lies; its items are nobody else's. It is made by
            `create`, and does without saying where it cannot be used.
        max_concurrency: operations that may run at a time; others wait.

    Raises:
        NoBackendGiven: neither url nor backend.
        BackendURLInvalid, BackendDoesNotExist: as `open_place`.
        TypeError: the backend object is none.
        ValueError: the config is none, a cache is missing or given twice, permissions for another
            URL, or one of borgstore's variables (`primary`) is no number.

    Any number of threads may use one Store. A sequence of operations is not atomic.
    """

    def __init__(
        self,
        url: str | None = None,
        backend: Backend | Foreign | None = None,
        config: Mapping[str, Mapping[str, object]] | None = None,
        permissions: Permissions | None = None,
        *,
        cache_url: str | None = None,
        cache_backend: Backend | Foreign | None = None,
        max_concurrency: int = 32,
    ) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        if backend is None and url is not None:
            backend = get_backend(url, permissions=permissions)
            if backend is None:
                raise BackendURLInvalid(
                    f"Invalid or unsupported Backend Storage URL: {redact_url(url)}"
                )
        if backend is None:
            raise NoBackendGiven("You need to give a backend instance or a backend url.")
        self.url = url
        self.backend = backend = as_backend(backend)
        self._namespaces = Namespaces.from_config(config or {})
        self._slots = Slots(max_concurrency)
        self._statistics = Statistics()
        self._cache = cache_of(config or {}, cache_url, cache_backend, self._statistics)
        self._primary = Primary(self._statistics, Emulation.from_environment(os.environ))
        self._items = CachedItems(backend, self._primary, self._cache)

    def __repr__(self) -> str:
        cache = "" if self._cache is None else f", cache_backend={_kind(self._cache.backend)!r}"
        return f"<Store(backend={_kind(self.backend)!r}{cache})>"

    @property
    def cache_backend(self) -> Backend | None:
        """Where the cache lies."""
        return None if self._cache is None else self._cache.backend

    @property
    def latency(self) -> float:
        """Seconds that a call to the place takes at least."""
        return self._primary.emulation.latency

    @property
    def bandwidth(self) -> float:
        """Bytes per second that the place moves at most, 0 for as many as it can."""
        return self._primary.emulation.bandwidth

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
        if self._cache is not None:
            self._cache.create()

    def destroy(self) -> None:
        """Remove the place with all items. Raises BackendDoesNotExist, BackendMustNotBeOpen."""
        self.backend.destroy()
        if self._cache is not None:
            self._cache.destroy()

    def open(self) -> None:
        """Get ready. Raises BackendDoesNotExist, BackendMustNotBeOpen."""
        self.backend.open()
        if self._cache is not None:
            self._cache.open()

    def close(self) -> None:
        """Raises BackendMustBeOpen."""
        self.backend.close()
        if self._cache is not None:
            self._cache.close()

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
        result = self._statistics.as_dict()
        result["cache_disabled"] = self._cache is not None and self._cache.disabled
        return result

    # -- items

    def find(self, name: str, *, deleted: bool = False) -> str:
        """Return the nested name of an item, and where it would go if there is none."""
        with self._slots:
            return self._find(name, deleted=deleted)

    def info(self, name: str, *, deleted: bool = False) -> ItemInfo:
        """Tell about an item; `exists` is False for a missing one. `name` is the last segment."""
        with self._operation("info", name):
            return self._primary.call(lambda: self._info(name, deleted=deleted))

    def load(
        self, name: str, *, size: int | None = None, offset: int = 0, deleted: bool = False
    ) -> bytes:
        """Return `size` bytes (None: all) from `offset` on; a negative one counts from the end.

        Raises:
            ObjectNotFound: no such item.
        """
        with self._operation("load", name) as operation:
            value = self._items.load(self._find(name, deleted=deleted), offset, size)
            operation.volume = len(value)
            return value

    def store(self, name: str, value: StoreValue) -> None:
        """Write an item, replacing it where it lies or making it at the last level.

        Raises:
            ValueError: a memoryview that is not C-contiguous.
        """
        data = value if isinstance(value, bytes) else memoryview(validate_value(value)).cast("B")
        with self._operation("store", name) as operation:
            self._items.store(self._find(name), data)
            operation.volume = len(data)

    def delete(self, name: str, *, deleted: bool = False) -> None:
        """Remove an item for good; for soft deletion see `move`. Raises ObjectNotFound."""
        with self._operation("delete", name):
            self._items.delete(self._find(name, deleted=deleted))

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
            self._items.move(source, target)

    def list(self, name: str, deleted: bool = False) -> Iterator[ItemInfo]:
        """Yield the items of a namespace, `""` for all, through all nesting; names without it.

        Lazy, and the store can be used meanwhile. Only live items, or with `deleted` only the
        soft-deleted ones under their original names. What is no valid key is left out.

        Raises:
            ObjectNotFound: there is no such namespace; by the first `next`.
        """
        if name:
            check_key(name)
        self._statistics.count("list_calls", 1)
        count = 0
        try:
            for info in items_below(
                self.backend,
                name,
                slots=self._slots,
                primary=self._primary,
                statistics=self._statistics,
            ):
                if info.name.endswith(DEL_SUFFIX) == deleted:
                    count += 1
                    yield info._replace(name=info.name.removesuffix(DEL_SUFFIX))
        finally:
            logger.debug("list %r -> %d items", name, count)

    def cache_invalidate(self, name: str, *, deleted: bool = False) -> None:
        """Remove an item from the cache, all of a namespace (with or without `/`), or everything
        ("")."""
        cache = self._cache
        if cache is None:
            return
        spaces = [namespace.rstrip("/") for namespace, _ in cache.policies]
        if name == ROOTNS or name.rstrip("/") in spaces:
            cache.clear(name.rstrip("/"))
            return
        with self._slots:
            nested = self._find(name, deleted=deleted)
            with cache.changing(nested):
                cache.delete(nested)

    def hash(self, name: str, algorithm: str = "sha256", *, deleted: bool = False) -> str:
        """Return the hex digest of an item by one of hashlib's algorithms, or blake3 where that
        library is installed.

        Raises:
            ObjectNotFound: no such item.
            ValueError: no such algorithm.
        """
        with self._operation("hash", name):
            nested = self._find(name, deleted=deleted)
            return self._primary.call(lambda: self._hash(nested, algorithm))

    def gather(
        self, sources: Iterable[Part], *, namespace: str | None = None, deleted: bool = False
    ) -> bytes:
        """Return the concatenation of (name, offset, size) parts of items in one namespace.

        Names are without the namespace, which may end in `/` as it does in a config.

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
            value = self._items.gather(found, _prefix(namespace))
            operation.volume = len(value)
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
        prefix = _prefix(namespace)
        if target is not None and "/" in target:
            raise ValueError(f"a target's namespace is given separately: {target!r}")
        with StoreOperation(self._slots, None, "defrag", namespace or "") as operation:
            operation.volume = sum(size for _, _, size in checked)
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
        return self._namespaces.find(self.backend, name, DEL_SUFFIX if deleted else "")

    def _find_parts(
        self, checked: Sequence[Part], namespace: str | None, *, deleted: bool
    ) -> Sequence[Part]:
        """Return the parts under nested names; those of no bytes are left out."""
        prefix = _prefix(namespace)
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

    def _info(self, name: str, *, deleted: bool) -> ItemInfo:
        nested = self._find(name, deleted=deleted)
        return self.backend.info(nested)._replace(name=nested.rpartition("/")[2])

    def _hash(self, nested: str, algorithm: str) -> str:
        digest = hashing.new(algorithm)
        if algorithm in hashlib.algorithms_available:
            return self.backend.hash(nested, algorithm)
        with self.backend.open_reader(nested) as reader:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def _operation(self, what: str, name: str) -> StoreOperation:
        return StoreOperation(self._slots, self._statistics, what, name)


def _prefix(namespace: str | None) -> str:
    return f"{namespace.rstrip('/')}/" if namespace else ""


def _kind(backend: Backend) -> str:
    return type(backend).__name__
