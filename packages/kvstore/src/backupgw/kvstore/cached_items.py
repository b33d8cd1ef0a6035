"""The items of a Store: in its place, and in its cache where it has one for their namespace."""

from __future__ import annotations

from collections.abc import Sequence

from .backends.base import Backend
from .backends.errors import ReadRangeError
from .layers.cache_items import Cache
from .layers.cache_policy import CacheMode
from .parts import Part
from .primary import Primary


class CachedItems:
    """Loading, storing, removing and moving by nested names.

    Args:
        cache: None for a Store without one.
    """

    def __init__(self, backend: Backend, primary: Primary, cache: Cache | None) -> None:
        self._backend = backend
        self._primary = primary
        self._cache = cache

    def _cache_for(self, name: str) -> Cache | None:
        cache = self._cache
        if cache is None or cache.disabled or cache.mode_of(name) is CacheMode.C_OFF:
            return None
        return cache

    def load(self, name: str, offset: int, size: int | None) -> bytes:
        """Return a range of an item. Raises ObjectNotFound."""
        cache = self._cache_for(name)
        if cache is None:
            return self._primary.call(
                lambda: self._backend.load(name, offset=offset, size=size), "load", len
            )
        if cache.mode_of(name) is CacheMode.C_WRITETHROUGH:
            cached = cache.load(name, offset, size)
            if cached is not None:
                return cached
        with cache.changing(name):
            whole = self._primary.call(lambda: self._backend.load(name), "load", len)
            cache.store(name, whole)
        start = max(len(whole) + offset, 0) if offset < 0 else offset
        return whole[start : None if size is None else start + size]

    def store(self, name: str, value: bytes | memoryview) -> None:
        """Write an item."""
        cache = self._cache_for(name)
        if cache is None:
            self._store(name, value)
            return
        with cache.changing(name):
            cache.forget(name)
            self._store(name, value)
            cache.store(name, value)

    def _store(self, name: str, value: bytes | memoryview) -> None:
        self._primary.call(lambda: self._backend.store(name, value), "store", len(value))

    def delete(self, name: str) -> None:
        """Remove an item. Raises ObjectNotFound."""
        cache = self._cache_for(name)
        if cache is None:
            self._delete(name)
            return
        with cache.changing(name):
            self._delete_both(cache, name)

    def _delete_both(self, cache: Cache, name: str) -> None:
        cache.forget(name)
        self._delete(name)
        cache.delete(name)  # it is gone already; this is what borgstore counts

    def _delete(self, name: str) -> None:
        self._primary.call(lambda: self._backend.delete(name), "delete")

    def move(self, name: str, new_name: str) -> None:
        """Rename an item. Raises ObjectNotFound."""
        cache = self._cache_for(name)
        if cache is None or name == new_name:
            self._primary.call(lambda: self._backend.move(name, new_name))
            return
        with cache.changing(name, new_name), cache.moving(name, new_name):
            self._primary.call(lambda: self._backend.move(name, new_name))

    def gather(self, sources: Sequence[Part], prefix: str) -> bytes:
        """Return the parts of items, which all lie in the namespace `prefix`, joined.

        Raises:
            ReadRangeError: an item ends before its part does.
        """
        if self._cache_for(prefix) is None:
            return self._primary.call(lambda: self._backend.gather(sources), "gather", len)
        parts = []
        for name, offset, size in sources:
            part = self.load(name, offset, size)
            if len(part) != size:
                raise ReadRangeError(f"{name}: {len(part)} of {size} bytes at {offset}")
            parts.append(part)
        return b"".join(parts)
