"""Places that take a value in one request or in parts: what each of them implements, and the
threads and the memory that all writers of a backend share.

`part_writer.PartWriter` does the rest. In one line a place is

    PartWriter(pool, target, plan)

with a `PartPool` that the backend makes when it is opened and closes when it is closed, and a
`PartTarget` for each value; a `ResumableTarget` where another process can carry an upload on.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ..layers.retry_schedule import Schedule, Trials
from .errors import BackendError, BackendMustBeOpen
from .part_memory import keep_large_apart

S = TypeVar("S")
T = TypeVar("T")

THREADS = 8
"""Parts that a backend sends at a time, for all its writers together."""

MEMORY = 32 << 20
"""Bytes of parts that are held for all writers together, before each is down to one part."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part belongs.

    Attributes:
        number: counts from 1.
        offset: of its first byte in the value.
        size: in bytes.
        last: no byte comes after it.
    """

    number: int
    offset: int
    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the place has. `tag` is what `PartTarget.put_part` returned."""

    number: int
    size: int
    tag: str


class PartTarget(ABC):
    """One value on its way into a place; knows its name, and whether it may replace another.

    What a method is given as data is its own until it returns, and is gone afterwards.

    Every method raises BackendErrors only, with `retryable` and `retry_after` set right: what is
    retryable is called again, with the same bytes, after a pause. Apart from put_part, which
    several threads call at once where `parallel` is above 1, one thread calls at a time.

    `state` is what `begin` returned; it goes into checkpoints, so it is text, and no secret.
    """

    parallel: int = 2
    """Parts of this value that are under way at a time; 1 where the place wants them in order."""

    begins_early: bool = False
    """Whether `begin` is called as soon as it is known that the value will go in parts, beside the
    bytes of the first one that come."""

    whole_at_most: int = 0
    """Bytes up to which a value, larger than a part, goes by `put_whole` all the same, where its
    size and hash are known before and the pool has memory for all of it."""

    @abstractmethod
    def part_size(self, number: int) -> int:
        """Return how many bytes the part `number` has, unless the value ends in it.

        A value no larger than the first part goes by `put_whole`. Memory follows from this: a
        writer holds one part, and up to `parallel` more where the pool has room.
        """

    @abstractmethod
    def put_whole(self, data: bytes | bytearray) -> None:
        """Store the value by one request, durably.

        Raises:
            ObjectExists: it was not to replace anything. Called again when the writer's commit is.
        """

    def send_ahead(self, data: bytearray, filled: int) -> None:  # noqa: ARG002 - of those who can
        """Some of a value has come that will go by `put_whole`: it may be sent already, as long as
        nothing is visible before that is called. Raises nothing.

        Args:
            data: the value's beginning. filled: how many of its bytes have come.
        """
        return

    def stop_sending(self) -> None:
        """Nothing more will come of what `send_ahead` was given. Raises nothing."""
        return

    @abstractmethod
    def begin(self) -> str:
        """Begin a value in parts; nothing of it may be visible before `complete`."""

    @abstractmethod
    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        """Send a part; return its tag.

        The last part comes from commit, after the hash and the size were found right. A place that
        shows the value as soon as it has all bytes looks here for what it must not replace.
        """

    @abstractmethod
    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        """Make the value visible, durably.

        Raises:
            ObjectExists: it was not to replace anything. Called again when the writer's commit is.
            ObjectNotFound: the place knows of no such upload.
        """

    @abstractmethod
    def abandon(self, state: str) -> None:
        """Give the upload up; one that is gone is fine."""

    def landed(self, state: str | None, size: int) -> bool:  # noqa: ARG002 - of those who can tell
        """Whether the value is in its place by now, surely this one and no other.

        Asked after an attempt to put or to complete it whose answer was lost. Without a doubt only
        where the place tells: by a mark that was sent along, by a hash, by a version.
        """
        return False


class ResumableTarget(PartTarget):
    """A target whose uploads another process can carry on."""

    def make_findable(self, state: str) -> None:  # noqa: ARG002 - of those whose state is not enough
        """See that others find the upload by `state`; called before it leaves the process.

        For places whose uploads are known by a secret, which must not be in the state.
        """
        return

    @abstractmethod
    def keep(self, data: bytes | bytearray) -> str:
        """Store what is no whole part yet, for a checkpoint; return what `kept` finds it by."""

    @abstractmethod
    def kept(self, reference: str) -> bytes:
        """Return what `keep` stored. Raises ObjectNotFound."""

    @abstractmethod
    def drop(self, reference: str) -> None:
        """Remove what `keep` stored; gone is fine."""

    @abstractmethod
    def sent(self, state: str) -> Sequence[SentPart]:
        """Return the parts that the place has of an upload. Raises ObjectNotFound."""


class PartPool:
    """The threads and the memory of a backend's writers.

    Args:
        threads: parts under way at a time.
        memory: bytes of parts held. Each writer may hold one part in any case, so that none waits
            for a slow one; it may hold more while all their parts together leave room.
        schedule: how often and how long a part, or any other request of a writer, is repeated.
    """

    def __init__(
        self, *, threads: int = THREADS, memory: int = MEMORY, schedule: Schedule | None = None
    ) -> None:
        keep_large_apart()
        self.schedule = schedule or Schedule()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="backupgw-parts")
        self._memory = memory
        self._claimed = 0
        self._lock = threading.Lock()

    @property
    def claimed(self) -> int:
        """Bytes that writers may hold now."""
        return self._claimed

    def claim(self, size: int) -> None:
        """Claim memory that a writer must have."""
        with self._lock:
            self._claimed += size

    def claim_more(self, size: int) -> bool:
        """Claim memory that a writer can do without; False where there is none left."""
        with self._lock:
            if self._claimed + size > self._memory:
                return False
            self._claimed += size
            return True

    def give(self, size: int) -> None:
        """Return what was claimed."""
        with self._lock:
            self._claimed -= size

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` on one of the threads. It raises nothing.

        Raises:
            BackendMustBeOpen: the pool is closed.
        """
        try:
            self._executor.submit(work)
        except RuntimeError as error:
            raise BackendMustBeOpen("the place was closed in the middle of a write") from error

    def each(self, work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """Do `work` for each item, several at a time; yield the results in order.

        Not from one of the pool's own threads.

        Raises:
            BackendMustBeOpen: the pool is closed.
            Exception: the first, in the items' order, that `work` raised.
        """
        try:
            return self._executor.map(work, items)
        except RuntimeError as error:
            raise BackendMustBeOpen("the place was closed meanwhile") from error

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._executor.shutdown(wait=True)


class Attempts:
    """Repeats the requests of one writer until it is given up.

    Args:
        schedule: how often and how long; its `sleep` is not used, for these pauses can be ended.
        name: the item's, for messages.
    """

    def __init__(self, schedule: Schedule, name: str) -> None:
        self._ended = threading.Event()
        self._name = name
        self._schedule = schedule

    def give_up(self) -> None:
        """End pauses now; nothing is tried again."""
        self._ended.set()

    def _pause(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise BackendError(f"{self._name}: the write was given up")

    def land(self, work: Callable[[], None], landed: Callable[[], bool]) -> None:
        """Do `work`, which can take effect but once, until it is done.

        Args:
            landed: asked when a repetition is refused: whether an attempt before it had succeeded
                without an answer.

        Raises:
            BackendError: the last attempt's.
        """
        trials = Trials(self._schedule, self._pause)
        while True:
            try:
                return work()
            except BackendError as error:
                if not error.retryable and trials.failed and self._surely(landed):
                    return None
                trials.pause(error)

    def result(self, work: Callable[[], T]) -> T:
        """Do `work` until it succeeds, and return its result. Raises the last attempt's error."""
        trials = Trials(self._schedule, self._pause)
        while True:
            try:
                return work()
            except BackendError as error:
                trials.pause(error)

    def _surely(self, landed: Callable[[], bool]) -> bool:
        try:
            return self.result(landed)
        except BackendError:
            return False  # what is known is the refusal
