"""A place that fails on command: what a mirror has to live with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader, Writer
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError
from backupgw.kvstore.layers.base import Layer


def gone() -> BackendError:
    return BackendConnectionError("the cable was pulled")


class FailingPlace(Layer):
    """Passes everything on, until told otherwise.

    Attributes:
        error: makes what every call raises; None while the place is well.
        commit_error: the same for commits alone.
        held: while not set, commits (or what `hold` names) wait for it.
        break_read_after: bytes after which readers fail.
        break_list_after: entries after which lists fail.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.error: Callable[[], BackendError] | None = None
        self.commit_error: Callable[[], BackendError] | None = None
        self.read_error: Callable[[], BackendError] = gone
        self.before_commit: Callable[[str], None] = lambda name: None
        self.free = threading.Event()
        self.free.set()
        self.hold = ""
        self.break_read_after: int | None = None
        self.break_list_after: int | None = None

    def _meet(self, what: str) -> None:
        if self.error is not None:
            raise self.error()
        if self.hold == what:
            assert self.free.wait(60)

    def open(self) -> None:
        self._meet("open")
        super().open()

    def info(self, name: str) -> ItemInfo:
        self._meet("info")
        return super().info(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        self._meet("list")
        for number, info in enumerate(super().list(name)):
            if number == self.break_list_after:
                raise gone()
            yield info

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        self._meet("open_reader")
        return _Reader(self, super().open_reader(name, offset=offset, size=size))

    def open_writer(self, name: str, **options: Any) -> Writer:
        self._meet("open_writer")
        return _Writer(self, super().open_writer(name, **options), name)

    def mkdir(self, name: str) -> None:
        self._meet("mkdir")
        super().mkdir(name)

    def mkdirs(self, names: Any) -> None:
        self._meet("mkdir")
        super().mkdirs(names)

    def rmdir(self, name: str) -> None:
        self._meet("rmdir")
        super().rmdir(name)

    def delete(self, name: str) -> None:
        self._meet("delete")
        super().delete(name)

    def move(self, name: str, new_name: str) -> None:
        self._meet("move")
        super().move(name, new_name)

    def quarantine(self, name: str) -> str:
        self._meet("quarantine")
        return self.inner.quarantine(name)

    def sync(self, name: str) -> None:
        self._meet("sync")
        super().sync(name)


class _Reader(Reader):
    def __init__(self, place: FailingPlace, inner: Reader) -> None:
        self._place = place
        self._inner = inner
        self._given = 0

    @property
    def item_size(self) -> int:  # type: ignore[override]
        return self._inner.item_size

    @property
    def remaining(self) -> int:  # type: ignore[override]
        return self._inner.remaining

    def read(self, size: int) -> bytes:
        self._place._meet("read")
        limit = self._place.break_read_after
        if limit is not None:
            if self._given >= limit:
                raise self._place.read_error()
            size = min(size, limit - self._given)
        data = self._inner.read(size)
        self._given += len(data)
        return data

    def close(self) -> None:
        self._inner.close()


class _Writer(Writer):
    def __init__(self, place: FailingPlace, inner: Writer, name: str) -> None:
        self._place = place
        self._inner = inner
        self._name = name

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._place._meet("write")
        self._inner.write(data)

    def check(self) -> None:
        self._inner.check()

    def commit(self) -> None:
        self._place.before_commit(self._name)
        self._place._meet("commit")
        if self._place.commit_error is not None:
            raise self._place.commit_error()
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()
