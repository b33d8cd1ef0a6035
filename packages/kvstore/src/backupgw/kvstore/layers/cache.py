"""Items of a slow place kept on a fast disk as well.

Reads come from the cache where it has the item, and a miss brings the whole item into it (mode
"writethrough"); or the place is always read and the cache only kept current ("mirror"). Changes go
to the place first, and nothing is acknowledged that the place has not got. The cache notices
changes made through any gateway that shares its folder, not those made elsewhere: with several
machines cache only items that never change, as those named by their content.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence

from ..backends.base import CHUNK, Backend, Capabilities, Reader, Writer
from ..backends.errors import BackendError, ReadRangeError
from ..backends.posixfs import PosixFS
from ..names import KernelPath, check_path
from ..statistics import Statistics
from .base import Layer, changed
from .cache_entries import EntryReader
from .cache_items import Cache, Filling
from .cache_policy import CacheMode, CachePolicy
from .options import OptionInvalid, duration, text
from .options import size as read_size
from .wrapped import WrappedWriter


def from_options(
    inner: Backend,
    *,
    size: object = "1 GiB",
    mode: object = "writethrough",
    max_age: object = None,
    largest: object = "64 MiB",
    only: object = None,
    folder: object = None,
    state_folder: str | None = None,
) -> CacheLayer:
    """`size`: of all items together; `largest`: of one; `max_age`: since its last use; `only`:
    patterns of names, such as "*/data/*"; `folder`: by default in the place's state folder."""
    if folder is None and state_folder is None:
        raise OptionInvalid("folder", "is missing; write the path of a folder on a fast disk")
    path = text("folder", folder) if folder is not None else f"{state_folder}/cache"
    if not os.path.isabs(path):
        raise OptionInvalid("folder", f"{path!r} must be an absolute path")
    try:
        known = CacheMode.from_str(mode)
    except ValueError as error:
        raise OptionInvalid("mode", str(error)) from None
    if isinstance(only, str) or not (only is None or isinstance(only, Sequence)):
        raise OptionInvalid("only", f"must be a list of patterns, not {only!r}")
    patterns = None if only is None else [text("only", pattern) for pattern in only]
    return CacheLayer(
        inner,
        PosixFS(path, durability="fast"),
        CachePolicy(
            known,
            None if max_age is None else duration("max_age", max_age),
            read_size("size", size),
        ),
        largest=read_size("largest", largest),
        only=patterns,
    )


class CacheLayer(Layer):
    """A place with a cache in front of it.

    Args:
        cache: a backend for the cache alone; made where it does not exist.
        policy: the mode and the limits.
        largest: bytes of the largest item that is cached.
        only: patterns (fnmatch) of the names that are cached; None for all.
    """

    def __init__(
        self,
        inner: Backend,
        cache: Backend,
        policy: CachePolicy,
        *,
        largest: int = 64 << 20,
        only: Sequence[str] | None = None,
    ) -> None:
        super().__init__(inner)
        self.statistics = Statistics()
        """Hits, misses and errors, under borgstore's keys."""
        self._cache = Cache(cache, [("", policy)], self.statistics)
        self._mode = policy.mode
        self._largest = largest
        self._only = None if only is None else [*only]

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return changed(super().capabilities, hash=self.inner.capabilities.hash)

    # -- the place itself

    def destroy(self) -> None:
        self.inner.destroy()
        self._cache.open()
        self._cache.clear("")
        self._cache.close()

    def open(self) -> None:
        self.inner.open()
        if self._mode is not CacheMode.C_OFF:
            self._cache.open(create=True)
        else:
            self._cache.disabled = True

    def close(self) -> None:
        self.inner.close()
        self._cache.close()

    def reap(self, older_than: float) -> int:
        if not self._cache.disabled:
            try:
                self._cache.backend.reap(older_than)
            except BackendError as error:
                self._cache.damaged("", error)
        return self.inner.reap(older_than)

    def _is_cached(self, name: str) -> bool:
        return (
            not self._cache.disabled
            and not isinstance(name, KernelPath)
            and (self._only is None or any(fnmatch.fnmatchcase(name, p) for p in self._only))
        )

    # -- reading

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        if not self._is_cached(name):
            return self.inner.open_reader(name, offset=offset, size=size)
        if self._mode is CacheMode.C_WRITETHROUGH:
            hit = self._cache.reader(name, offset, size)
            if hit is not None:
                return _CachedReader(self.inner, self._cache, name, hit)
        with self._cache.changing(name):
            return self._fill(name, offset, size)

    def _fill(self, name: str, offset: int, size: int | None) -> Reader:
        """Bring an item into the cache and return a reader of it. Call with the name held."""
        source = self.inner.open_reader(name)
        fits = source.item_size <= self._largest
        filling = self._cache.filling(name, source.item_size) if fits else None
        if filling is None:
            source.close()
            return self.inner.open_reader(name, offset=offset, size=size)
        try:
            with source:
                while chunk := source.read(CHUNK):
                    filling.write(chunk)
        except BaseException:
            filling.abort()
            raise
        filling.commit()
        try:
            hit = EntryReader(self._cache.backend, name, offset, size)
        except BackendError:
            return self.inner.open_reader(name, offset=offset, size=size)
        return _CachedReader(self.inner, self._cache, name, hit)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        """Return the digest of what the place holds: who asks wants to know that it is whole."""
        return self.inner.hash(name, algorithm)

    # -- changing

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        if not self._is_cached(name):
            return writer
        filling = None
        if size is not None and size <= self._largest:
            filling = self._cache.filling(name, size)
        return _CachedWriter(writer, self._cache, name, filling)

    def delete(self, name: str) -> None:
        check_path(name)
        with self._cache.changing(name):
            self._cache.forget(name)
            self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        check_path(name)
        with self._cache.changing(name):
            self._cache.forget(name)
            return self.inner.delete_sized(name)

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=False)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=True)

    def _move(self, name: str, new_name: str, *, if_absent: bool) -> None:
        check_path(name)
        check_path(new_name)
        move = self.inner.move_if_absent if if_absent else self.inner.move
        if name == new_name:
            move(name, new_name)
            return
        with self._cache.changing(name, new_name):
            self._cache.forget(name)
            self._cache.forget(new_name)
            move(name, new_name)

    def quarantine(self, name: str) -> str:
        check_path(name)
        with self._cache.changing(name):
            self._cache.forget(name)
            return self.inner.quarantine(name)


class _CachedReader(Reader):
    """Reads from the cache, and goes on at the place where the entry turns out to be damaged."""

    def __init__(self, place: Backend, cache: Cache, name: str, hit: EntryReader) -> None:
        self._place = place
        self._cache = cache
        self._name = name
        self._hit: EntryReader | None = hit
        self._reader: Reader = hit
        self.item_size = hit.item_size

    @property
    def remaining(self) -> int:  # type: ignore[override]  # it follows the reader in use
        return self._reader.remaining

    def read(self, size: int) -> bytes:
        hit = self._hit
        if hit is None:
            return self._reader.read(size)
        try:
            return hit.read(size)
        except Exception as error:  # noqa: BLE001 - a broken cache never fails an operation
            self._cache.damaged(self._name, error)
        position, rest = hit.position, hit.remaining
        reader = self._place.open_reader(self._name, offset=position, size=rest)
        if reader.item_size != self.item_size or reader.remaining != rest:
            reader.close()
            raise ReadRangeError(f"{self._name}: was replaced while it was read")
        hit.close()
        self._reader, self._hit = reader, None
        return reader.read(size)

    def close(self) -> None:
        self._reader.close()


class _CachedWriter(WrappedWriter):
    """Writes to both. The entry that becomes stale goes before the place has the new value; the
    new one comes after it."""

    def __init__(self, writer: Writer, cache: Cache, name: str, filling: Filling | None) -> None:
        super().__init__(writer)
        self._cache = cache
        self._name = name
        self._filling = filling

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        if self._filling is not None:
            self._filling.write(data)

    def commit(self) -> None:
        with self._cache.changing(self._name):
            self._cache.forget(self._name)
            self._writer.commit()
            if self._filling is not None:
                self._filling.commit()

    def abort(self) -> None:
        super().abort()
        if self._filling is not None:
            self._filling.abort()
