"""Tries again what failed for a moment.

Only errors that say `retryable` lead to another attempt, after a pause as `retry_schedule` has it.
An error may have come before the place did anything, or after it did everything; so each operation
has a decision of its own, and what cannot be repeated without doubt is not repeated:

    open, info, quota, sync, hash       repeated: they change nothing
    list                                goes on: see `retry_listing`
    open_reader, reader.read            the reader goes on at its offset, in the same value or not
                                        at all: see `retry_reader`
    gather                              repeated: it reads
    delete, rmdir                       repeated. Gone at a repetition means done: the first attempt
                                        did it, or somebody else did at the same time. An item that
                                        somebody writes between two attempts is deleted, as it would
                                        have been had one attempt come late.
    move                                repeated. No source at a repetition and something at the
                                        target means done. (Of two that move or delete one item at
                                        the same time, both may be told that they did it.)
    move_if_absent                      the same
    mkdir, mkdirs                       repeated: a folder that exists is fine
    copy, defrag, store                 repeated: each replaces its target by the same bytes, which
                                        the place or the caller still has
    abort_writer                        repeated: one that is gone is fine
    open_writer                         repeated: nothing was sent yet
    write, commit, checkpoint,          never: the bytes are gone, and only the caller has them. The
    resume_writer                       error says retryable=True, and the caller begins anew.
    create, destroy                     never: at a repetition nobody knew whose place it is
    quarantine, reap                    never: they are upkeep, and come again by themselves

Pauses hold no lock and no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from ..backends.base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from ..backends.errors import BackendError, ObjectExists, ObjectNotFound
from .base import Layer, changed
from .retry_listing import go_on_listing
from .retry_reader import ReplacedMeanwhile, RetryingReader
from .retry_schedule import Schedule, Trials, read_schedule

T = TypeVar("T")

_BATCH = 1000
"""Folders that are made, and made again, at a time."""


def from_options(
    inner: Backend,
    *,
    attempts: object = 5,
    deadline: object = "2 min",
    first_pause: object = "100 ms",
    longest_pause: object = "10 s",
) -> RetryLayer:
    """`attempts`: how often at most, the first included; the others are times (`Schedule`)."""
    return RetryLayer(inner, read_schedule(attempts, deadline, first_pause, longest_pause))


class RetryLayer(Layer):
    """A place whose short failures nobody notices.

    Args:
        schedule: how often and how long.
    """

    def __init__(self, inner: Backend, schedule: Schedule | None = None) -> None:
        super().__init__(inner)
        self._schedule = schedule or Schedule()

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return changed(self.inner.capabilities, local_path=False)

    def _repeat(self, work: Callable[[], T]) -> T:
        """Do what can be done twice."""
        trials = Trials(self._schedule)
        while True:
            try:
                return work()
            except BackendError as error:
                trials.pause(error)

    def _repeat_until_gone(self, work: Callable[[], None]) -> None:
        """Remove something; once an attempt failed, finding nothing is success."""
        trials = Trials(self._schedule)
        while True:
            try:
                work()
            except ObjectNotFound:
                if not trials.failed:
                    raise
            except BackendError as error:
                trials.pause(error)
                continue
            return

    def _repeat_move(self, work: Callable[[], None], name: str, new_name: str) -> None:
        trials = Trials(self._schedule)
        while True:
            try:
                work()
            except (ObjectNotFound, ObjectExists):
                if not (trials.failed and self._moved(name, new_name)):
                    raise
            except BackendError as error:
                trials.pause(error)
                continue
            return

    def _moved(self, name: str, new_name: str) -> bool:
        return name != new_name and not self.info(name).exists and self.info(new_name).exists

    # -- the place itself

    def open(self) -> None:
        self._repeat(self.inner.open)

    def quota(self) -> Quota:
        return self._repeat(self.inner.quota)

    # -- folders

    def mkdir(self, name: str) -> None:
        self._repeat(lambda: self.inner.mkdir(name))

    def mkdirs(self, names: Iterable[str]) -> None:
        rest = iter(names)
        while batch := [*islice(rest, _BATCH)]:
            self._make(batch)

    def _make(self, names: Sequence[str]) -> None:
        self._repeat(lambda: self.inner.mkdirs(names))

    def rmdir(self, name: str) -> None:
        self._repeat_until_gone(lambda: self.inner.rmdir(name))

    def list(self, name: str) -> Iterator[ItemInfo]:
        return go_on_listing(lambda: self.inner.list(name), Trials(self._schedule))

    # -- items

    def info(self, name: str) -> ItemInfo:
        return self._repeat(lambda: self.inner.info(name))

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        reader = self._repeat(lambda: self.inner.open_reader(name, offset=offset, size=size))
        return self._retrying(reader, name, offset)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        try:
            reader = self.inner.open_reader_nowait(name, offset=offset, size=size)
        except BackendError as error:
            if not error.retryable:
                raise
            return None  # open_reader waits and tries again
        return None if reader is None else self._retrying(reader, name, offset)

    def _retrying(self, reader: Reader, name: str, offset: int) -> Reader:
        total = reader.item_size
        start = max(total + offset, 0) if offset < 0 else min(offset, total)

        def reopen(offset: int, size: int) -> Reader:
            return self.inner.open_reader(name, offset=offset, size=size)

        return RetryingReader(reader, start, reopen, self._schedule)

    def load(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Unlike a reader, this begins anew when the item is replaced meanwhile."""
        trials = Trials(self._schedule)
        while True:
            try:
                return super().load(name, offset=offset, size=size)
            except ReplacedMeanwhile as error:
                trials.pause(error)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        return self._repeat(
            lambda: self.inner.open_writer(
                name, size=size, if_absent=if_absent, expected_hash=expected_hash
            )
        )

    def resume_writer(self, token: str) -> Writer:
        return self.inner.resume_writer(token)

    def abort_writer(self, token: str) -> None:
        self._repeat(lambda: self.inner.abort_writer(token))

    def delete(self, name: str) -> None:
        self._repeat_until_gone(lambda: self.inner.delete(name))

    def delete_sized(self, name: str) -> int:
        size = 0

        def remove() -> None:
            nonlocal size
            size = self.inner.delete_sized(name)

        self._repeat_until_gone(remove)
        return size

    def move(self, name: str, new_name: str) -> None:
        self._repeat_move(lambda: self.inner.move(name, new_name), name, new_name)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._repeat_move(lambda: self.inner.move_if_absent(name, new_name), name, new_name)

    # -- optional operations, native where the place has them

    def sync(self, name: str) -> None:
        self._repeat(lambda: self.inner.sync(name))

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        self._repeat(lambda: self.inner.store(name, value))

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        return self._repeat(lambda: self.inner.hash(name, algorithm))

    def copy(self, name: str, new_name: str) -> None:
        self._repeat(lambda: self.inner.copy(name, new_name))

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        parts = [*sources]
        return self._repeat(lambda: self.inner.gather(parts))

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        self._repeat(lambda: self.inner.defrag(sources, target))

    def quarantine(self, name: str) -> str:
        return self.inner.quarantine(name)
