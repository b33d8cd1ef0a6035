"""A large item, fetched by several connections at a time: one alone is often slower than the line.

All pieces are of one value: each is refused that has another version than the first, whose reader
stays open until all are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from backupgw.kvstore.backends.base import CHUNK, Backend, Reader
from backupgw.kvstore.backends.errors import BackendError

from .files_here import NewFile

MOST = 4
"""Connections for one item."""


class Interrupted(BackendError):
    """Somebody ended the transfer."""


class Pieces:
    """One item on its way into a file.

    Args:
        first: reads the first `piece` bytes.
        stopping: set by who wants it to end.
    """

    def __init__(
        self,
        place: Backend,
        name: str,
        first: Reader,
        piece: int,
        new: NewFile,
        stopping: threading.Event,
    ) -> None:
        self._place = place
        self._name = name
        self._first = first
        self._size = first.item_size
        self._new = new
        self._piece = piece
        self._stopping = stopping
        self._starts = iter(range(piece, self._size, piece))
        self._begun = min(piece, self._size)
        self._changed = threading.Condition()
        # What follows changes under it.
        self._done = 0
        self._told = 0
        """Bytes done when whoever waits was last woken."""
        self._error: BaseException | None = None
        self._working = 0

    def fetch(
        self, connections: threading.BoundedSemaphore, tell: Callable[[int, int], object]
    ) -> None:
        """Fetch all of it.

        Args:
            connections: of which more are taken while there are some.
            tell: called with bytes done and in all, by this thread alone.

        Raises:
            Interrupted: it was to end.
            BackendError: the place failed, or the item was replaced meanwhile.
        """
        threads = [threading.Thread(target=self._work, args=(True, None), name="fetch-0")]
        left = -(-(self._size - self._begun) // self._piece)
        while len(threads) < min(MOST, 1 + left) and connections.acquire(blocking=False):
            name = f"fetch-{len(threads)}"
            threads.append(
                threading.Thread(target=self._work, args=(False, connections), name=name)
            )
        self._working = len(threads)
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            self._wait(tell)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error
        if self._done != self._size:
            raise BackendError(
                f"{self._name}: {self._done} of {self._size} bytes came", retryable=True
            )

    def _wait(self, tell: Callable[[int, int], object]) -> None:
        told = 0
        while True:
            with self._changed:
                while self._told == told and self._working and self._error is None:
                    self._changed.wait()
                done, ended = self._told, not self._working or self._error is not None
            if done != told:
                tell(done, self._size)
                told = done
            elif ended:
                return

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _work(self, first: bool, connections: threading.BoundedSemaphore | None) -> None:
        try:
            if first:
                self._read(self._first, 0, self._begun)
            while (start := self._next()) is not None:
                size = min(self._piece, self._size - start)
                with self._place.open_reader(self._name, offset=start, size=size) as reader:
                    if reader.version != self._first.version or reader.item_size != self._size:
                        raise BackendError(
                            f"{self._name}: was replaced while it was read", retryable=True
                        )
                    self._read(reader, start, start + size)
        except BaseException as error:  # noqa: BLE001 - fetch raises it
            self._fail(error)
        finally:
            if connections is not None:
                connections.release()
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            return None if self._error is not None else next(self._starts, None)

    def _read(self, reader: Reader, at: int, end: int) -> None:
        buffer = memoryview(bytearray(min(CHUNK, max(1, end - at))))
        while count := reader.read_into(buffer):
            if self._stopping.is_set():
                raise Interrupted("the transfer was ended")
            if self._error is not None:
                return
            self._new.write_at(buffer[:count], at)
            at += count
            with self._changed:
                self._done += count
                if self._done - self._told >= CHUNK or self._done == self._size:
                    self._told = self._done
                    self._changed.notify_all()
        if at != end:
            raise BackendError(f"{self._name}: ends at {at}, not at {end}", retryable=True)
