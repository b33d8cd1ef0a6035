"""What all layers start from: a Backend around a Backend that lets only the core through.

An optional operation that a layer does not implement itself works by its default, on top of the
layer's own core, and the capability that would announce a native one is off. A native copy that
slipped past a quota, or a native hash past an encryption, would be a hole; a layer that forgets an
operation is slower instead. Upkeep that moves no item (`reap`, `mkdirs`) goes through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ..backends.base import Backend, Capabilities, ItemInfo, Reader, Writer


@lru_cache(maxsize=256)
def changed(capabilities: Capabilities, **changes: bool) -> Capabilities:
    """Return capabilities of which some are others; remembered, since every layer around a layer
    asks for its capabilities, several times for each transfer."""
    return dataclasses.replace(capabilities, **changes)


class Layer(Backend):
    """Passes the core on to `inner`.

    Args:
        inner: what the layer lies around; the layer opens and closes it.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        """What the inner backend can do, less every optional operation."""
        return changed(
            self.inner.capabilities,
            resumable_write=False,
            copy=False,
            hash=False,
            local_path=False,
            quota=False,
            snapshots=False,
        )

    def create(self) -> None:
        self.inner.create()

    def destroy(self) -> None:
        self.inner.destroy()

    def prepare_fork(self) -> None:
        self.inner.prepare_fork()

    def handed_on(self) -> Mapping[str, object]:
        return self.inner.handed_on()

    def take_over(self, found: Mapping[str, object]) -> None:
        self.inner.take_over(found)

    def open(self) -> None:
        self.inner.open()

    def close(self) -> None:
        self.inner.close()

    def mkdir(self, name: str) -> None:
        self.inner.mkdir(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        self.inner.mkdirs(names)

    def rmdir(self, name: str) -> None:
        self.inner.rmdir(name)

    def info(self, name: str) -> ItemInfo:
        return self.inner.info(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        return self.inner.list(name)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        return self.inner.open_reader(name, offset=offset, size=size)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        return self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def move(self, name: str, new_name: str) -> None:
        self.inner.move(name, new_name)

    def sync(self, name: str) -> None:
        self.inner.sync(name)

    def reap(self, older_than: float) -> int:
        return self.inner.reap(older_than)


class ReadingThrough(Layer):
    """A layer that reading passes as it is, by the inner backend's own ways."""

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        return self.inner.open_reader_nowait(name, offset=offset, size=size)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        return self.inner.hash(name, algorithm)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        return self.inner.gather(sources)
