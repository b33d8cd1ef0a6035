"""One place of a mirror: calling it without being held up by it, and knowing how it is.

A place is up, suspect (its last calls failed) or down (too many failed in a row, or one did not
return in time). Nothing but the probe is sent to a place that is down. What a place says about an
item (not found, exists, full, not allowed) is an answer; only what shows that the place itself is
in trouble counts as a failure.
"""

from __future__ import annotations

import enum
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ..backends.base import Backend, ItemInfo
from ..backends.errors import BackendConnectionError, BackendError, BackendMustBeOpen
from .mirror_crew import Crew

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_FAILURES = 3
"""Failed calls in a row after which a place is down."""

CLOSED = "closed"
"""Why a place is down that nobody has opened."""

_FIRST_BATCH = 16
_LARGEST_BATCH = 1024
"""Entries of a list that are fetched at a time: few at first, so that the first comes at once."""


class State(enum.StrEnum):
    """How a place is."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class PlaceStatus:
    """What `MirrorLayer.status` tells of a place.

    `missed` counts the names that it does not hold as it should; `trusted` is False for a new
    place until it was filled. `since` is in seconds since the epoch.
    """

    place: str
    description: str
    state: State
    since: float
    reason: str
    missed: int
    trusted: bool


class PlaceTimeout(BackendConnectionError):
    """A place did not answer in time; the call may still happen."""


class Place:
    """A backend among those of a mirror.

    Args:
        label: what the journal calls it.
        patience: seconds that a call may take.
        on_change: called after each change of state, on whatever thread noticed it.
    """

    def __init__(
        self,
        label: str,
        backend: Backend,
        crew: Crew,
        *,
        patience: float,
        on_change: Callable[[Place], None],
    ) -> None:
        self.label = label
        self.backend = backend
        self.patience = patience
        self.trusted = True
        self.state = State.DOWN
        self.since = time.time()
        self.reason = CLOSED
        self._crew = crew
        self._on_change = on_change
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._failures = 0
        self._under_way = 0
        self._opened = False

    def __str__(self) -> str:
        return f"place {self.label} ({self.backend!r})"

    @property
    def usable(self) -> bool:
        return self.state is not State.DOWN

    # -- calls

    def call(self, work: Callable[[Backend], T]) -> T:
        """Run `work` on the backend and return its result.

        Raises:
            PlaceTimeout: it took longer than `patience`; the place is down now.
            BackendConnectionError: the place is down.
            BackendError: whatever the backend raised.
        """
        return self.wait(self.start(work))

    def start(self, work: Callable[[Backend], T]) -> Future[T]:
        """Begin a call; see `wait`. Raises BackendConnectionError where the place is down."""
        if not self.usable:
            raise BackendConnectionError(f"{self} is down: {self.reason}")
        return self._crew.start(self.counted(work))

    def counted(self, work: Callable[[Backend], T], *, telling: bool = True) -> Callable[[], T]:
        """Return `work` as a call whose outcome counts for the state of the place.

        Args:
            telling: False for what succeeds without the place, such as giving a write up.
        """
        with self._lock:
            self._under_way += 1

        def run() -> T:
            try:
                result = work(self.backend)
            except Exception as error:
                self._judge(error)
                raise
            else:
                if self._failures and telling:
                    self._answered()
                return result
            finally:
                with self._lock:
                    self._under_way -= 1
                    self._quiet.notify_all()

        return run

    def wait(self, future: Future[T]) -> T:
        """Return the result of a call that was started."""
        try:
            try:
                return future.result(timeout=self.patience)
            except TimeoutError:
                if not future.done():
                    raise self.timed_out() from None
            return future.result()  # it came just now, or the call itself raised that
        except TimeoutError as error:
            raise BackendConnectionError(f"{self}: {error}") from error

    def timed_out(self) -> PlaceTimeout:
        """Take the place out of use for not answering; return the error to raise."""
        self.take_down(f"no answer within {self.patience:g} s")
        return PlaceTimeout(f"{self} did not answer within {self.patience:g} s")

    def batches(self, folder: str) -> Iterator[ItemInfo]:
        """Yield a folder's entries, fetched some at a time within `patience` each."""
        entries = self.call(lambda backend: iter(backend.list(folder)))
        size = _FIRST_BATCH
        while batch := self.call(lambda _, size=size: [*islice(entries, size)]):  # type: ignore[misc]
            yield from batch
            size = min(size * 4, _LARGEST_BATCH)

    # -- the state

    def _judge(self, error: Exception) -> None:
        if isinstance(error, BackendMustBeOpen):
            self.take_down(str(error))
        elif is_trouble(error) or _is_failing_disk(error):
            with self._lock:
                self._failures += 1
                failures = self._failures
            if failures >= MOST_FAILURES:
                self.take_down(str(error))
            else:
                self._change(State.SUSPECT, str(error), of=State.UP)
        elif self._failures:
            self._answered()

    def _answered(self) -> None:
        with self._lock:
            self._failures = 0
        self._change(State.UP, "", of=State.SUSPECT)

    def take_down(self, reason: str) -> None:
        """Send nothing more to the place until `bring_up`."""
        if self.state is not State.DOWN:
            self._change(State.DOWN, reason)
        elif reason == CLOSED:
            self.reason = CLOSED

    def _change(self, state: State, reason: str, *, of: State | None = None) -> None:
        """Change the state; of one state only, or another thread's word would be taken back."""
        with self._lock:
            if self.state is state or (of is not None and self.state is not of):
                return
            before, was_down = self.reason, self.state is State.DOWN
            self.state, self.reason, self.since = state, reason, time.time()
            self._failures = 0 if state is State.UP else self._failures
        if CLOSED in (reason, before):
            logger.debug("%s is %s", self, state)
        elif state is State.DOWN:
            logger.warning("%s is down: %s", self, reason)
        elif was_down:
            logger.warning("%s is up again", self)
        else:
            logger.info("%s is %s: %s", self, state, reason or "it answers")
        self._on_change(self)

    def bring_up(self, check: Callable[[Backend], None]) -> None:
        """Open the backend anew and put the place into use if `check` finds nothing wrong.

        It is opened anew because what was open may be of a file system that is no longer mounted.

        Raises:
            BackendError: it is still down, and why.
        """
        with self._lock:
            if not self._quiet.wait_for(lambda: not self._under_way, min(1.0, self.patience)):
                raise BackendConnectionError(f"{self}: {self._under_way} calls still hang")
        future = self._crew.start(lambda: self._reopen(check))
        try:
            future.result(timeout=self.patience)
        except TimeoutError:
            raise BackendConnectionError(f"{self} does not answer") from None
        self._change(State.UP, "")

    def _reopen(self, check: Callable[[Backend], None]) -> None:
        with self._lock:
            self._under_way += 1
        try:
            self.shut()
            self.backend.open()
            self._opened = True
            check(self.backend)
        finally:
            with self._lock:
                self._under_way -= 1

    def shut(self) -> None:
        """Close the backend, whatever state it is in."""
        if self._opened:
            self._opened = False
            try:
                self.backend.close()
            except BackendError as error:
                logger.debug("%s: close: %s", self, error)


def _is_failing_disk(error: Exception) -> bool:
    """Whether a disk could not be read or written: a few of these in a row, and it is dead."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EIO


def is_trouble(error: Exception) -> bool:
    """Whether an error tells of the place rather than of the item that was asked for."""
    if isinstance(error, BackendError):
        return isinstance(error, BackendConnectionError) or error.retryable
    return not isinstance(error, ValueError | TypeError)
