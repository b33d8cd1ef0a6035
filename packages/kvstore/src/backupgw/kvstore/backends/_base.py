"""borgstore's module of this name: what a backend written for borgstore stands on.

For classes that are somebody else's: `Store` adapts them (`adapted`). Backends of ours are
`base.Backend`s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from ..names import check_key
from ..utils import hashing
from ..utils.nesting import nest
from .base import ItemInfo as ItemInfo
from .errors import ReadRangeError

StoreValue = bytes | bytearray | memoryview

Source = tuple[str, int, int]
"""(name, offset, size in bytes) of a part of an item."""


def validate_name(name: str) -> None:
    """Raise ValueError for what is no key, TypeError for what is no str (`names.check_key`)."""
    check_key(name)


def validate_value(value: StoreValue) -> StoreValue:
    """Return a value whose length is its bytes.

    Raises:
        ValueError: a memoryview that is not C-contiguous.
    """
    if not isinstance(value, memoryview):
        return value
    try:
        return value.cast("B")
    except TypeError:
        raise ValueError("value must be a C-contiguous memoryview") from None


def to_bytes(value: StoreValue) -> bytes:
    """Return a value as bytes, copied unless it is that already."""
    return value if isinstance(value, bytes) else bytes(value)


def validate_sources(sources: Iterable[object]) -> list[Source]:
    """Return the sources of gather and defrag as a list of tuples.

    Raises:
        ValueError: one is no (name, offset, size).
    """
    found: list[Source] = []
    for source in sources:
        match source:
            case (str(name), int(offset), int(size)) if (
                not isinstance(offset, bool) and not isinstance(size, bool) and size >= 0
            ):
                found.append((name, offset, size))
            case _:
                raise ValueError(f"a source is (name, offset, size >= 0), not {source!r}")
    return found


class BackendBase(ABC):
    """A backend as borgstore has it. It moves whole values, and one call at a time will do.

    Attributes:
        precreate_dirs: whether borgstore's own Store makes all folders ahead. Ours does not ask.
    """

    precreate_dirs: bool = False

    @abstractmethod
    def create(self) -> None:
        """Make the storage."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove the storage with all it holds."""

    @abstractmethod
    def open(self) -> None:
        """Get ready for use."""

    @abstractmethod
    def close(self) -> None:
        """End the use."""

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

    @abstractmethod
    def mkdir(self, name: str) -> None:
        """Make a folder."""

    @abstractmethod
    def rmdir(self, name: str) -> None:
        """Remove a folder."""

    @abstractmethod
    def info(self, name: str) -> ItemInfo:
        """Tell about an item or a folder."""

    @abstractmethod
    def load(self, name: str, *, size: int | None = None, offset: int = 0) -> bytes:
        """Return `size` bytes (None: all) from `offset` on; a negative one counts from the end."""

    @abstractmethod
    def store(self, name: str, value: StoreValue) -> None:
        """Write a whole value. A memoryview belongs to the caller once this returns."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an item."""

    @abstractmethod
    def move(self, curr_name: str, new_name: str) -> None:
        """Rename an item, replacing what is there."""

    @abstractmethod
    def list(self, name: str) -> Iterator[ItemInfo]:
        """Yield what a folder holds, not recursively."""

    def gather(self, sources: Iterable[Source]) -> bytes:
        """Return the concatenation of parts. Raises ReadRangeError where an item is too short."""
        found = []
        for name, offset, size in validate_sources(sources):
            part = self.load(name, offset=offset, size=size) if size else b""
            if len(part) != size:
                raise ReadRangeError(f"{name}: {len(part)} of {size} bytes at {offset}")
            found.append(part)
        return b"".join(found)

    def defrag(
        self,
        sources: Iterable[Source],
        *,
        target: str | None = None,
        algorithm: str | None = None,
        namespace: str | None = None,
        levels: int = 0,
    ) -> str:
        """Write the concatenation of parts as an item; return its name.

        Args:
            target: the name; None for the hash of what is written, in `namespace`, nested.
            algorithm: for that hash.

        Raises:
            ValueError: neither target nor algorithm.
        """
        value = self.gather(sources)
        if target is None:
            if algorithm is None:
                raise ValueError("Either target or algorithm must be given for defrag")
            digest = hashing.new(algorithm, value).hexdigest()
            target = f"{namespace.rstrip('/')}/{digest}" if namespace else digest
            target = nest(target, levels)
        self.store(target, value)
        return target

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        """Return the hex digest of an item."""
        return hashing.new(algorithm, self.load(name)).hexdigest()

    def quota(self) -> dict[str, int]:
        """Return `limit` and `usage` in bytes, -1 where they are not known."""
        return {"limit": -1, "usage": -1}
