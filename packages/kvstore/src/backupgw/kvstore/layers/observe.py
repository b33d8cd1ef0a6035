"""Tells what is done to a place: a record of each operation, for metrics and for the log.

An operation is one of OPERATIONS. Reading an item is one, `load`, from opening to closing the
reader; so are writing one, `store`, and a listing, however many entries it has. Its time is what
the place took: what the caller does between two pieces or two entries is not counted.

While nobody listens (no hook, and the log does not show DEBUG) calls go straight through, and
readers and writers are the inner ones themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..backends.base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from .base import Layer
from .observe_records import OPERATIONS as OPERATIONS  # part of what this module tells
from .observe_records import Hook as Hook
from .observe_records import Operation as Operation
from .observe_streams import ObservedReader, ObservedWriter
from .options import OptionInvalid, text

logger = logging.getLogger(__name__)


def from_options(
    inner: Backend, *, name: object = "place", on_operation: object = None
) -> ObserveLayer:
    """`name` is what the records call the place; both come from the context as a rule."""
    if on_operation is not None and not callable(on_operation):
        raise OptionInvalid("on_operation", "is a function, which only a program can give")
    return ObserveLayer(inner, text("name", name), on_operation)


class ObserveLayer(Layer):
    """A place whose operations are told.

    Args:
        name: what the records call the place.
        on_operation: gets every record; None for the log alone.
    """

    def __init__(
        self, inner: Backend, name: str = "place", on_operation: Hook | None = None
    ) -> None:
        super().__init__(inner)
        self._place = name
        self._hook = on_operation

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return self.inner.capabilities

    @property
    def _listening(self) -> bool:
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    @contextmanager
    def _operation(self, kind: str, name: str = "") -> Iterator[Operation]:
        """Time the block and tell it, whatever becomes of it."""
        operation = Operation(self._place, kind, name)
        start = time.perf_counter()
        try:
            yield operation
        except BaseException as error:
            operation.outcome = type(error).__name__
            raise
        finally:
            operation.seconds += time.perf_counter() - start
            self.tell(operation)

    def tell(self, operation: Operation) -> None:
        """Hand a record to the hook and to the log."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s: %s %r -> %s, %d B%s in %.2f ms",
                operation.place,
                operation.kind,
                operation.name,
                operation.outcome,
                operation.bytes,
                f", {operation.entries} entries" if operation.kind == "list" else "",
                operation.seconds * 1000,
            )
        if self._hook is not None:
            self._hook(operation)

    # -- the place itself

    def create(self) -> None:
        with self._operation("create"):
            self.inner.create()

    def destroy(self) -> None:
        with self._operation("destroy"):
            self.inner.destroy()

    def open(self) -> None:
        with self._operation("open"):
            self.inner.open()

    def close(self) -> None:
        with self._operation("close"):
            self.inner.close()

    def quota(self) -> Quota:
        with self._operation("quota"):
            return self.inner.quota()

    def reap(self, older_than: float) -> int:
        with self._operation("reap") as operation:
            operation.entries = self.inner.reap(older_than)
            return operation.entries

    # -- folders

    def mkdir(self, name: str) -> None:
        with self._operation("mkdir", name):
            self.inner.mkdir(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        with self._operation("mkdirs"):
            self.inner.mkdirs(names)

    def rmdir(self, name: str) -> None:
        with self._operation("rmdir", name):
            self.inner.rmdir(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        if not self._listening:
            return self.inner.list(name)
        with self._quiet_unless_it_fails("list", name) as operation:
            entries = self.inner.list(name)
        return self._observed(entries, operation)

    def _observed(self, entries: Iterator[ItemInfo], operation: Operation) -> Iterator[ItemInfo]:
        operation.outcome = "broken off"
        clock = time.perf_counter
        try:
            while True:
                start = clock()
                try:
                    info = next(entries, None)
                except BaseException as error:
                    operation.outcome = type(error).__name__
                    raise
                finally:
                    operation.seconds += clock() - start
                if info is None:
                    operation.outcome = "ok"
                    return
                operation.entries += 1
                yield info
        finally:
            self.tell(operation)

    @contextmanager
    def _quiet_unless_it_fails(self, kind: str, name: str) -> Iterator[Operation]:
        """Time the beginning of an operation that goes on; tell it only if it ends here."""
        operation = Operation(self._place, kind, name)
        start = time.perf_counter()
        try:
            yield operation
        except BaseException as error:
            operation.outcome = type(error).__name__
            operation.seconds = time.perf_counter() - start
            self.tell(operation)
            raise
        operation.seconds = time.perf_counter() - start

    # -- items

    def info(self, name: str) -> ItemInfo:
        if not self._listening:
            return self.inner.info(name)
        with self._operation("info", name):
            return self.inner.info(name)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        if not self._listening:
            return self.inner.open_reader(name, offset=offset, size=size)
        with self._quiet_unless_it_fails("load", name) as operation:
            reader = self.inner.open_reader(name, offset=offset, size=size)
        return ObservedReader(reader, operation, self.tell)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        if not self._listening:
            return self.inner.open_reader_nowait(name, offset=offset, size=size)
        with self._quiet_unless_it_fails("load", name) as operation:
            reader = self.inner.open_reader_nowait(name, offset=offset, size=size)
        return None if reader is None else ObservedReader(reader, operation, self.tell)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        with self._quiet_unless_it_fails("store", name) as operation:
            writer = self.inner.open_writer(
                name, size=size, if_absent=if_absent, expected_hash=expected_hash
            )
        return ObservedWriter(writer, operation, self.tell) if self._listening else writer

    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> bool:
        with self._quiet_unless_it_fails("store", name) as operation:
            stored = self.inner.store_nowait(
                name, value, if_absent=if_absent, expected_hash=expected_hash
            )
        if stored:
            operation.bytes = len(value)
            self.tell(operation)
        return stored

    def resume_writer(self, token: str) -> Writer:
        with self._operation("resume") as operation:
            writer = self.inner.resume_writer(token)
        write = Operation(operation.place, "store", "")
        return ObservedWriter(writer, write, self.tell) if self._listening else writer

    def abort_writer(self, token: str) -> None:
        with self._operation("discard"):
            self.inner.abort_writer(token)

    def delete(self, name: str) -> None:
        with self._operation("delete", name):
            self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        with self._operation("delete", name):
            return self.inner.delete_sized(name)

    def move(self, name: str, new_name: str) -> None:
        with self._operation("move", name):
            self.inner.move(name, new_name)

    def move_if_absent(self, name: str, new_name: str) -> None:
        with self._operation("move", name):
            self.inner.move_if_absent(name, new_name)

    def sync(self, name: str) -> None:
        with self._operation("sync", name):
            self.inner.sync(name)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        with self._operation("hash", name):
            return self.inner.hash(name, algorithm)

    def copy(self, name: str, new_name: str) -> None:
        with self._operation("copy", name):
            self.inner.copy(name, new_name)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        with self._operation("gather") as operation:
            value = self.inner.gather(sources)
            operation.bytes = len(value)
            return value

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        with self._operation("defrag", target) as operation:
            self.inner.defrag(sources, target)
            operation.bytes = sum(size for _, _, size in sources)

    def quarantine(self, name: str) -> str:
        with self._operation("quarantine", name):
            return self.inner.quarantine(name)
