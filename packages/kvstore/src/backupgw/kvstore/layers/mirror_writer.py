"""One value on its way to all places of a mirror, side by side.

Each place has a lane: a short queue of pieces, worked off by a thread while there is something in
it. The client is as fast as the slowest place, but a place that does not move for `patience`
seconds is left behind: it has missed the item, and is down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from ..backends.base import Backend, Writer
from ..backends.errors import BackendError, ContentMismatch, ObjectExists
from .mirror_crew import Crew
from .mirror_places import Place, is_trouble

if TYPE_CHECKING:
    from .mirror_changes import Changes

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_WAITING = 4 << 20
"""Bytes that may wait in a lane."""


class Lane:
    """What one place has still to do for one value, in order.

    Args:
        open_writer: makes the place's own writer; the first thing that is done.
    """

    def __init__(self, place: Place, crew: Crew, open_writer: Callable[[Backend], Writer]) -> None:
        self.place = place
        self.error: Exception | None = None
        self._crew = crew
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], object], int]] = deque()
        self._waiting = 0
        self._busy = False
        self._moved = time.monotonic()
        self._writer: Writer | None = None
        self._post(lambda: self._open(open_writer))

    def _open(self, open_writer: Callable[[Backend], Writer]) -> None:
        self._writer = open_writer(self.place.backend)

    def write(self, data: bytes) -> None:
        """Queue a piece, waiting for room. Never raises: a lane that failed takes nothing."""
        size = len(data)
        with self._changed:
            self._wait_until(lambda: not self._waiting or self._waiting + size <= _MOST_WAITING)
        self._post(lambda: self._need_writer().write(data), size)

    def drain(self) -> None:
        """Wait until all was written, or `error` tells why it was not."""
        with self._changed:
            self._wait_until(lambda: not self._busy)

    def run(self, work: Callable[[Writer], T]) -> Future[T]:
        """Do something with the writer of a drained lane; see `result`."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(work(self._need_writer()))
            except Exception as error:
                future.set_exception(error)
                raise

        self._post(job)
        return future

    def result(self, future: Future[T]) -> T:
        """Return the result of `run`. Raises what the work raised, PlaceTimeout when it is late."""
        try:
            return future.result(timeout=self.place.patience)
        except TimeoutError:
            if future.done():
                return future.result()  # it came just now, or the work itself raised that
            error = self.place.timed_out()
            with self._changed:
                self.error = error
            raise error from None

    def abort(self) -> None:
        """Forget what was written, without waiting for the place."""
        with self._changed:
            self._jobs.clear()
            self.error = self.error or BackendError("given up")
            self._jobs.append((self._abort, 0))
            if self._busy:
                return
            self._busy = True
        self._crew.start(self.place.counted(lambda _: self._work(), telling=False))

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    def _need_writer(self) -> Writer:
        if self._writer is None:
            raise BackendError("the writer was never opened")
        return self._writer

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait while the place moves on. Called with the condition held."""
        while self.error is None and not condition():
            left = self._moved + self.place.patience - time.monotonic()
            if left <= 0:
                self.error = self.place.timed_out()
                self._jobs.clear()
                return
            self._changed.wait(left)

    def _post(self, job: Callable[[], object], size: int = 0) -> None:
        with self._changed:
            if self.error is not None:
                return
            self._jobs.append((job, size))
            self._waiting += size
            if self._busy:
                return
            self._busy = True
            self._moved = time.monotonic()
        self._crew.start(self.place.counted(lambda _: self._work()))

    def _work(self) -> None:
        """Do what is queued; raise what tells of trouble, for the state of the place."""
        trouble: Exception | None = None
        while True:
            with self._changed:
                if not self._jobs:
                    self._busy = False
                    self._changed.notify_all()
                    break
                job, size = self._jobs.popleft()
            try:
                job()
            except Exception as error:  # noqa: BLE001 - told to whoever waits for the lane
                logger.debug("%s: %s", self.place, error)
                trouble = error if is_trouble(error) else trouble
                with self._changed:
                    if self.error is None:
                        self.error = error
                        self._jobs.clear()
            with self._changed:
                self._waiting -= size
                self._moved = time.monotonic()
                self._changed.notify_all()
        if trouble is not None:
            raise trouble


class MirrorWriter(Writer):
    """A value for all places that are up.

    Args:
        changes: decides how the commit is recorded, and what happens where it fails.
        size, if_absent: as `open_writer` has them.
    """

    def __init__(
        self,
        changes: Changes,
        name: str,
        lanes: list[Lane],
        *,
        size: int | None,
        if_absent: bool,
    ) -> None:
        self._changes = changes
        self._name = name
        self._lanes = lanes
        self._size = size
        self._if_absent = if_absent
        self._written = 0
        self._ended = False

    @property
    def offset(self) -> int:
        return self._written

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._require_open()
        piece = bytes(data)
        if self._size is not None and self._written + len(piece) > self._size:
            raise ContentMismatch(f"{self._name}: more than the {self._size} bytes due")
        self._written += len(piece)
        for lane in self._lanes:
            lane.write(piece)
        self._drop_failed()

    def _drop_failed(self) -> None:
        """Go on without the places that failed, as long as enough are left."""
        left = [lane for lane in self._lanes if lane.error is None]
        if len(left) == len(self._lanes):
            return
        if len(left) < self._changes.quorum:
            errors = {lane.place: lane.error for lane in self._lanes if lane.error is not None}
            raise self._changes.too_few(self._name, errors)
        for lane in self._lanes:
            if lane.error is not None:
                logger.warning("%s: goes on without %s: %s", self._name, lane.place, lane.error)
                lane.abort()
        self._lanes = left

    def _drain(self) -> None:
        """Wait until all came, and enough places have it. Raises ContentMismatch for its size."""
        self._require_open()
        if self._size is not None and self._written != self._size:
            raise ContentMismatch(f"{self._name}: {self._written} of {self._size} bytes came")
        for lane in self._lanes:
            lane.drain()
        self._drop_failed()

    def check(self) -> None:
        self._drain()
        lane = self._lanes[0]  # all were given the same
        lane.result(lane.run(lambda writer: writer.check()))

    def commit(self) -> None:
        self._drain()
        lanes = {lane.place: lane for lane in self._lanes}
        try:
            self._changes.change(
                [self._name],
                list(lanes),
                start=lambda place: lanes[place].run(lambda writer: writer.commit()),
                wait=lambda place, future: lanes[place].result(future),
                check=self._refuse_existing if self._if_absent else None,
            )
        except ObjectExists:
            raise
        except BaseException:
            self.abort()
            raise
        self._ended = True

    def _refuse_existing(self) -> None:
        info = self._changes.reads.info(self._name)
        if info.exists and not info.directory:
            self.check()
            raise ObjectExists(f"{self._name} exists")

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        for lane in self._lanes:
            lane.abort()

    def _require_open(self) -> None:
        if self._ended:
            raise BackendError(f"{self._name}: the writer has ended")
