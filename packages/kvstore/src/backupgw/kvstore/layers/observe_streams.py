"""Readers and writers whose time and bytes are counted; see `observe`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..backends.base import Reader, Writer
from ..backends.errors import ObjectNotFound, UnsupportedOperation
from .observe_records import Hook, Operation
from .wrapped import WrappedReader, WrappedWriter


class ObservedReader(WrappedReader):
    """Counts what a reader delivers; told when it is closed."""

    def __init__(self, reader: Reader, operation: Operation, tell: Hook) -> None:
        super().__init__(reader)
        self._operation = operation
        self._tell: Hook | None = tell
        self._failure: str | None = None

    def read(self, size: int) -> bytes:
        start = time.perf_counter()
        try:
            data = self._reader.read(size)
        except BaseException as error:
            self._failure = type(error).__name__
            raise
        finally:
            self._operation.seconds += time.perf_counter() - start
        self._operation.bytes += len(data)
        return data

    def read_into(self, buffer: memoryview) -> int:
        start = time.perf_counter()
        try:
            count = self._reader.read_into(buffer)
        except BaseException as error:
            self._failure = type(error).__name__
            raise
        finally:
            self._operation.seconds += time.perf_counter() - start
        self._operation.bytes += count
        return count

    def read_nowait(self, size: int) -> bytes | bytearray | None:
        start = time.perf_counter()
        data = self._reader.read_nowait(size)
        self._operation.seconds += time.perf_counter() - start
        if data is not None:
            self._operation.bytes += len(data)
        return data

    def close(self) -> None:
        remaining = self._reader.remaining
        self._reader.close()
        if (tell := self._tell) is not None:
            self._tell = None
            self._operation.outcome = self._failure or ("broken off" if remaining else "ok")
            tell(self._operation)


class ObservedWriter(WrappedWriter):
    """Counts what a writer takes; told when it ends."""

    def __init__(self, writer: Writer, operation: Operation, tell: Hook) -> None:
        super().__init__(writer)
        self._operation = operation
        self._tell: Hook | None = tell

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with self._timed():
            self._writer.write(data)
        self._operation.bytes += memoryview(data).nbytes

    def commit(self) -> None:
        with self._timed():
            self._writer.commit()
        self._end("ok")

    def commit_over(self, kept: str) -> None:
        # Where this is refused, commit follows; so only what went well, or broke, is the end.
        with self._timed(not_failures=(UnsupportedOperation, ObjectNotFound)):
            self._writer.commit_over(kept)
        self._end("ok")

    def abort(self) -> None:
        self._writer.abort()
        self._end("aborted")

    def checkpoint(self) -> str:
        with self._timed():
            token = self._writer.checkpoint()
        self._end("checkpoint")
        return token

    def _end(self, outcome: str) -> None:
        if (tell := self._tell) is not None:
            self._tell = None
            if self._operation.outcome == "ok" or outcome == "ok":
                self._operation.outcome = outcome
            tell(self._operation)

    @contextmanager
    def _timed(self, *, not_failures: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except not_failures:
            raise
        except BaseException as error:
            # Kept for the abort that follows; a commit that is repeated with success clears it.
            self._operation.outcome = type(error).__name__
            raise
        finally:
            self._operation.seconds += time.perf_counter() - start
